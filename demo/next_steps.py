"""What a user does next, as lines to copy: open the pages, ask the endpoint, start another run, stop."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from rich.console import Console

from demo.outcome import say
from demo.pipelines import Names
from demo.settings import REGION, Settings


def client_config(settings: Settings, url: str) -> Path:
    """Write the configuration with which AWS's clients reach the local SageMaker; its path."""
    path = settings.local / "aws.ini"
    path.touch(mode=0o600)
    path.write_text(
        f"[default]\nregion = {REGION}\nendpoint_url = {url}\n"
        f"credential_process = cat {shlex.quote(str(settings.credentials))}\n"
    )
    return path


def asking(settings: Settings, url: str, endpoint: str, image: Path) -> dict[str, str]:
    """Lines that send an image to the endpoint at the local SageMaker, by the client they use."""
    config = f"AWS_PROFILE=default AWS_CONFIG_FILE={shlex.quote(str(client_config(settings, url)))}"
    python = shlex.quote(str(settings.environments / "airflow" / "bin" / "python"))
    file = shlex.quote(str(image))
    call = (
        f'import boto3; r = boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="{endpoint}", '
        f'Body=open({json.dumps(str(image))}, "rb").read()); print(r["Body"].read().decode())'
    )
    lines = {"Python": f"{config} {python} -c {shlex.quote(call)}"}
    if shutil.which("aws"):
        lines["AWS CLI"] = (
            f"{config} aws sagemaker-runtime invoke-endpoint --endpoint-name {endpoint} "
            f"--body fileb://{file} /dev/stdout"
        )
    if settings.require_signatures:
        return lines
    return {"curl": f"curl --data-binary @{file} {url}/endpoints/{endpoint}/invocations", **lines}


def show_next_steps(settings: Settings, out: Console, names: Names, url: str, image: Path) -> None:
    """The lines, after a run that has a model in service."""
    say(out, "\nNext:", style="bold")
    for client, line in asking(settings, url, names.endpoint, image).items():
        say(out, f"  ask the endpoint, {client}:\n      {line}")
    for command, what in (
        ("make open", "Airflow in the browser, signed in"),
        (f"make trigger PIPELINE={names.pipeline}", "another run"),
        ("make drills", "what can go wrong, for real"),
        ("make down", "stop everything"),
    ):
        say(out, f"  {command:36}{what}")
