"""Starting and stopping: ports, process identity, and everything that a service leaves behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from demo import services
from demo.settings import DemoError, Settings

CHILD = "import time; time.sleep(600)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); time.sleep(600)"


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def sleeper(environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env={**os.environ, **(environment or {})}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, airflow_port=0, sagemaker_port=0)


def start(settings: Settings, code: str = PARENT) -> services.Service:
    return services.start(settings, "airflow", 1, [sys.executable, "-c", code], os.environ)


def test_a_port_in_use_is_named_with_the_variable_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=rf"Port {port} .* choose another port with AIRFLOW_PORT="):
            services.claim_port(port, "AIRFLOW_PORT")


def test_the_ports_of_both_services_are_checked_before_either_is_started(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DemoError, match="AIRFLOW_PORT="):
            services.check_ports(replace(settings, airflow_port=taken.getsockname()[1]))
    services.check_ports(settings)


def test_port_0_is_any_free_one() -> None:
    assert services.claim_port(0, "AIRFLOW_PORT") > 0


def test_a_service_and_what_it_started_are_stopped(settings: Settings) -> None:
    service = start(settings)
    process = psutil.Process(service.pid)
    assert eventually(lambda: len(process.children()) == 1)
    child = process.children()[0]

    assert services.find(settings, "airflow") == service
    assert services.stop(settings, "airflow")

    assert not services.alive(child)
    assert services.find(settings, "airflow") is None
    assert not services.stop(settings, "airflow")


def test_a_process_that_took_over_the_id_is_left_alone(settings: Settings) -> None:
    with sleeper() as stranger:
        created = psutil.Process(stranger.pid).create_time()
        stale = services.Service("airflow", stranger.pid, created - 3600, 1)
        path = services.record(settings, "airflow")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(asdict(stale)))

        assert services.find(settings, "airflow") is None
        assert not services.stop(settings, "airflow")
        assert stranger.poll() is None
        assert replace(stale, created=created).process() is not None


def test_jobs_below_the_own_root_are_ended_and_others_are_not(settings: Settings, tmp_path: Path) -> None:
    own = {services.JOB_VARIABLE: str(settings.sagemaker_root / "training-job" / "a")}
    foreign = {services.JOB_VARIABLE: str(tmp_path / "sagemaker-of-somebody-else" / "a")}
    with sleeper(own) as job, sleeper(foreign) as other:
        assert eventually(lambda: len(services.jobs(settings.sagemaker_root)) == 1)
        services.stop(settings, "sagemaker")
        assert not services.alive(psutil.Process(job.pid))
        assert other.poll() is None


def test_a_service_that_ends_while_starting_is_reported_with_its_log(settings: Settings) -> None:
    service = start(settings, "raise SystemExit('no database')")
    with pytest.raises(DemoError, match=r"airflow ended while starting:\nno database"):
        services.wait_until_ready(settings, service, lambda _url: False)


def test_the_password_is_made_once_and_only_the_owner_can_read_it(settings: Settings) -> None:
    first = services.password(settings)
    assert services.password(settings) == first
    assert (settings.airflow_home / "passwords.json").stat().st_mode & 0o077 == 0


def test_the_connection_has_the_keys_of_the_local_sagemaker(settings: Settings) -> None:
    without = json.loads(services.aws_connection("http://here", settings.credentials))
    assert (without["login"], without["password"]) == ("anyone", "not-a-secret")
    settings.credentials.parent.mkdir(parents=True)
    settings.credentials.write_text('{"AccessKeyId": "LOCAL1", "SecretAccessKey": "mine"}')
    made = json.loads(services.aws_connection("http://here", settings.credentials))
    assert (made["login"], made["password"], made["extra"]["endpoint_url"]) == (
        "LOCAL1",
        "mine",
        "http://here",
    )


def test_the_services_do_not_inherit_the_callers_aws_and_airflow_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    kept = services.clean_environment()
    assert not {"AWS_PROFILE", "AIRFLOW__CORE__EXECUTOR"} & kept.keys()
