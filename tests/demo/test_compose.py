"""The containers' configuration, as far as it can be tried without containers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from demo.environments import ROOT
from tests.local_sagemaker.runtime_process import RuntimeProcess

FILE = "/credentials/credentials.json"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    services: dict[str, Any] = document["services"]
    return services


def test_airflow_signs_with_the_keys_that_the_local_sagemaker_made(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "keys" / "credentials.json"
    options = tuple(part.replace(FILE, str(made)) for part in services["sagemaker"]["command"])
    assert "--require-signatures" in options
    runtime = RuntimeProcess(tmp_path / "root", options=options).start()
    try:
        environment = services["scheduler"]["environment"]
        connection = json.loads(environment["AIRFLOW_CONN_AWS_DEFAULT"])
        host = connection["extra"]["endpoint_url"].removeprefix("http://").partition(":")[0]
        assert host == options[options.index("--allowed-host") + 1]
        connection["extra"]["endpoint_url"] = runtime.url
        config = ROOT / environment["AWS_CONFIG_FILE"].removeprefix("/app/")
        (tmp_path / "config").write_text(config.read_text().replace(FILE, str(made)))
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AIRFLOW_CONN_AWS_COMPOSE", json.dumps(connection))
        client: Any = AwsBaseHook(aws_conn_id="aws_compose", client_type="sts").get_conn()
        assert client.get_caller_identity()["Account"] == "123456789012"
    finally:
        runtime.close()


def test_what_needs_the_keys_sees_them_and_starts_after_they_are_made(services: dict[str, Any]) -> None:
    assert "credentials:/credentials" in services["sagemaker"]["volumes"]
    assert services["init"]["depends_on"]["sagemaker"] == {"condition": "service_healthy"}
    for name in ("inputs", "scheduler", "triggerer", "dag-processor", "api-server"):
        assert "credentials:/credentials:ro" in services[name]["volumes"]
        assert services[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
    assert services["inputs"]["command"][-1] == FILE
