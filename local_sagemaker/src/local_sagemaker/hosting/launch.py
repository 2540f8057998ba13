"""Prepares what an instance needs: files, Python environment, variables, and a log stream."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from local_sagemaker.context import ACCOUNT, Context
from local_sagemaker.hosting.fleet_record import FleetRecord, VariantRecord
from local_sagemaker.hosting.model_data import SUBMIT_DIRECTORY, ModelDataError, place_model
from local_sagemaker.hosting.worker import Instance
from local_sagemaker.image_environments import Environment, Images, overlay
from local_sagemaker.jobs.container import default_variables, platform_variables, usable_cores
from local_sagemaker.logs import CloudWatchLogs, LogFollower
from local_sagemaker.paths import below
from local_sagemaker.s3.objects import Objects

INSTALL_SECONDS = 600.0
LOG_KIND = "endpoint-logs"  # kept when the endpoint is deleted, as in CloudWatch Logs


class Launcher:
    """Prepares the instances of all endpoints."""

    def __init__(self, context: Context, objects: Objects, images: Images) -> None:
        self._context = context
        self._objects = objects
        self._images = images
        self._logs = CloudWatchLogs(context.settings.region)
        self._republished: dict[Path, LogFollower] = {}

    def folder(self, endpoint: str, fleet: str = "") -> Path:
        folder = self._context.folder("endpoint", endpoint)
        return below(folder, fleet) if fleet else folder

    def prepare(self, endpoint: str, fleet: FleetRecord, variant: VariantRecord) -> Callable[[str], Instance]:
        """Prepare a variant's model for all its instances, and return a function from name to Instance.

        Preparing again changes nothing. Raises ModelDataError, or ValidationError for an unknown image.
        """
        folder = below(self.folder(endpoint, fleet.id), variant.name)
        environment = self._images.resolve(variant.container["Image"])
        base = folder / "opt_ml"
        place_model(variant.container, self._objects, base / "model")
        requirements = base / "model" / "code" / "requirements.txt"
        if requirements.exists():
            environment = _install(environment, requirements, folder / "environment")
        defaults = {"OMP_NUM_THREADS": str(max(1, usable_cores() // fleet.instance_count))}
        if environment.python_path is not None:
            defaults["PYTHONPATH"] = str(environment.python_path)
        variables = self._variables(endpoint, variant, base, environment, defaults)

        def instance(name: str) -> Instance:
            log = below(self._context.folder(LOG_KIND, endpoint), f"{variant.name}/{name}.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            return Instance(
                name,
                folder / name,
                log,
                environment.python,
                environment.server,
                variables,
                float(variant.startup_seconds),
            )

        return instance

    def follow(self, endpoint: str, log: Path) -> LogFollower:
        """Send an instance's log to CloudWatch Logs, earlier lines first, but each line once."""
        return self._republished.pop(log, None) or self._follower(endpoint, log)

    def republish_logs(self) -> None:
        """After a restart: fill CloudWatch Logs, which is in memory, also for instances that have ended."""
        for log in (self._context.settings.root / LOG_KIND).glob("*/*/*.log"):
            self._republished[log] = self._follower(log.parents[1].name, log)

    def log_stream_arn(self, endpoint: str, variant: str, instance: str) -> str:
        region = self._context.settings.region
        group, stream = log_group(endpoint), log_stream(variant, instance)
        return f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}:log-stream:{stream}"

    def _follower(self, endpoint: str, log: Path) -> LogFollower:
        sink = partial(self._logs.put, log_group(endpoint), log_stream(log.parent.name, log.stem))
        return LogFollower(log, log.with_suffix(".jsonl"), sink)

    def _variables(
        self,
        endpoint: str,
        variant: VariantRecord,
        base: Path,
        environment: Environment,
        defaults: Mapping[str, str],
    ) -> dict[str, str]:
        """A container's variables and SageMaker's for endpoints; the model's own override the defaults."""
        settings = self._context.settings
        variables = {**default_variables(), **defaults, "SAGEMAKER_REGION": settings.region}
        variables |= variant.container.get("Environment", {})
        path = variables.get("PATH", os.defpath)
        variables |= platform_variables(base, environment, path, settings)
        variables |= {"SAGEMAKER_ENDPOINT_NAME": endpoint, "SM_MODEL_DIR": str(base / "model")}
        if SUBMIT_DIRECTORY in variables:
            variables[SUBMIT_DIRECTORY] = str(base / "model" / "code")
        return variables


def log_group(endpoint: str) -> str:
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def log_stream(variant: str, instance: str) -> str:
    return f"{variant}/{instance}"


def _install(environment: Environment, requirements: Path, folder: Path) -> Environment:
    """Install a model's requirements, as AWS's container does at startup. Raises ModelDataError."""
    private = overlay(environment, folder)
    done = folder / "installed"
    if not done.exists():
        pip = [str(private.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run(
                [*pip, "-r", str(requirements)], check=True, capture_output=True, timeout=INSTALL_SECONDS
            )
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip()[-500:]
            raise ModelDataError(
                f"pip could not install code/requirements.txt of the model: {reason}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ModelDataError(
                f"pip did not install code/requirements.txt in {INSTALL_SECONDS:g} s"
            ) from error
        done.touch()
    return private
