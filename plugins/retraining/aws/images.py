"""AWS's container images: which one a job or an endpoint runs in, and until when AWS patches it.

`images.yaml` is written by hand from AWS's own list; `sdk_tables.yaml` is generated from the SageMaker SDK
(`make aws-tables`). The SDK itself is not needed: it cannot be installed beside Airflow on Python 3.12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from retraining.errors import PlanError

WARNING_DAYS = 60
"""How long before its end of patch an image is warned of."""

RAY_SERVE, TORCHSERVE = "Ray Serve", "TorchServe"

_MODEL_SERVERS = {"ray": RAY_SERVE, "pytorch-inference": TORCHSERVE}  # by repository of AWS's images

_TABLES = Path(__file__).with_name("sdk_tables.yaml")
_IMAGES = Path(__file__).with_name("images.yaml")

# AWS's Graviton processors: m6g, c7gn, t4g, x2gd, ...; but not the GPU families g4dn, g5, g6e.
_ARM = re.compile(r"[a-z]+\d+g[a-z]*")
_OTHER_PROCESSORS = {"inf": "Inferentia", "trn": "Trainium"}

# repository and tag of an image in AWS's or anybody's registry
_URI = re.compile(r"^[^/]+/(?:.*/)?(?P<repository>[^/:]+):(?P<tag>[^/:]+)$")
_VERSION = re.compile(r"^(?P<pytorch>\d+\.\d+)(?:\.\d+)?-|-(?P<ray>v\d+\.\d+)$")


def default_image(use: Literal["training", "serving"], region: str, instance_type: str) -> str:
    """URI of AWS's image for training (and evaluation) or for serving, for the instance type's processor.

    Raises PlanError where AWS has none for the region or the processor.
    """
    image = _images()[use]
    registry = sdk_tables()["registries"].get(region)
    if registry is None:
        raise PlanError(
            f"AWS's {use} image {image['repository']}:{image['cpu']} is not known in the region {region}: "
            f"copy it into a registry of yours and name it in the pipeline file ({_key(use)}), or choose "
            f"another region: {', '.join(sdk_tables()['registries'])}."
        )
    tag = image["gpu" if has_gpu(instance_type) else "cpu"]
    return f"{registry}/{image['repository']}:{tag}"


def rules_image(region: str) -> str:
    """URI of AWS's Debugger rules. Raises PlanError in a region where AWS has none."""
    registry = sdk_tables()["rule_registries"].get(region)
    if registry is None:
        raise PlanError(
            f"AWS evaluates no Debugger rules in the region {region}: set debugger: in_job in the pipeline "
            "file (the rules then run inside the training job), or off."
        )
    return f"{registry}/sagemaker-debugger-rules:latest"


def has_gpu(instance_type: str) -> bool:
    """Whether an instance type like ml.g5.xlarge has NVIDIA GPUs.

    Raises PlanError for a processor that AWS's PyTorch images do not run on.
    """
    family = instance_type.split(".")[1]
    other = _OTHER_PROCESSORS.get(re.split(r"\d", family)[0])
    if other is None and _ARM.fullmatch(family):
        other = "ARM"
    if other:
        raise PlanError(
            f"{instance_type} has {other} processors, and AWS's images here are for x86 and NVIDIA GPUs: "
            "choose another instance type."
        )
    return family.startswith(("g", "p"))


def model_server(uri: str) -> str | None:
    """RAY_SERVE or TORCHSERVE for AWS's images for inference, None for any other image."""
    match = _URI.match(uri)
    return _MODEL_SERVERS.get(match["repository"]) if match else None


def pytorch_version(uri: str) -> str | None:
    """The version of PyTorch in an image of AWS's, as far as the table knows it."""
    known = _known(uri)
    return known["pytorch"] if known else None


def patch_warning(uri: str, today: date) -> str | None:
    """A sentence about an image that AWS patches no more or not for long; None where it does or may."""
    known = _known(uri)
    end: date | None = known["end_of_patch"] if known else None
    if end is None:
        return None
    if end < today:
        return f"AWS has not patched {uri} since {end}: it runs on, without security fixes. Use a newer one."
    if (end - today).days <= WARNING_DAYS:
        return f"AWS patches {uri} only until {end}, {(end - today).days} more days: move to a newer one."
    return None


def _known(uri: str) -> Mapping[str, Any] | None:
    match = _URI.match(uri)
    version = _VERSION.search(match["tag"]) if match else None
    if match is None or version is None:
        return None
    known: Mapping[str, Any] | None = (
        _images()["versions"].get(match["repository"], {}).get(version["pytorch"] or version["ray"])
    )
    return known


def _key(use: Literal["training", "serving"]) -> str:
    return "job.image_uri" if use == "training" else "endpoint.image_uri"


@cache
def _images() -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(_IMAGES.read_text(encoding="utf-8"))
    return content


@cache
def sdk_tables() -> Mapping[str, Any]:
    """What the SageMaker SDK knows: `registries` and `rule_registries` by region, `rules` by name."""
    content: Mapping[str, Any] = yaml.safe_load(_TABLES.read_text(encoding="utf-8"))
    return content
