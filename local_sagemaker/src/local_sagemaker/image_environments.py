"""Which Python environment on this machine stands for which container image.

The mapping is a YAML file (`images/images.yaml`) in which the first match wins:

    environments: ../../.local/envs        # relative to the file; LOCAL_SAGEMAKER_ENVIRONMENTS overrides it
    images:
      - match: '.*/pytorch-training:.*'    # a regular expression over the whole image URI
        environment: training              # a folder there, or an absolute path, with bin/python
        python_path: ../../code            # optional, relative to the file: code in the image
        variables: {NAME: value}           # optional: what the image's Dockerfile sets
        server: ray-serve                  # of images for inference: ray-serve, or torchserve (the default)
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from local_sagemaker.errors import ValidationError

ENVIRONMENTS_VARIABLE = "LOCAL_SAGEMAKER_ENVIRONMENTS"


TORCHSERVE = "torchserve"


class ImagesFileError(Exception):
    """The images file cannot be used; the message names the file and the fault."""


@dataclass(frozen=True)
class Environment:
    """The Python environment that stands for a container image.

    `python_path` is code in the image, `variables` are the environment variables of its Dockerfile, `server`
    is the model server in it.
    """

    image: str
    folder: Path
    python_path: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    server: str = TORCHSERVE

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


@dataclass(frozen=True)
class _Entry:
    match: re.Pattern[str]
    folder: Path
    python_path: Path | None
    variables: Mapping[str, str]
    server: str


class Images:
    """The images file, read once. Raises ImagesFileError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read(path)

    def resolve(self, image: str) -> Environment:
        """The environment for an image URI. Raises ValidationError if there is none, or it is not built."""
        entry = next((entry for entry in self._entries if entry.match.fullmatch(image)), None)
        if entry is None:
            raise ValidationError(
                f"The image {image!r} has no environment on this machine: no 'match' in {self._path} fits. "
                "Add an entry there, or use an image that it names."
            )
        environment = Environment(image, entry.folder, entry.python_path, entry.variables, entry.server)
        if not environment.python.exists():
            raise ValidationError(
                f"The environment of the image {image!r} is not built: {environment.python} is missing. "
                f"Build it (make setup), or change its folder in {self._path}."
            )
        return environment


def overlay(environment: Environment, folder: Path) -> Environment:
    """A private environment in `folder`, which sees the packages of `environment` and installs into itself.

    Like the writable layer of a container, it keeps one job's `pip install -r requirements.txt` from changing
    another's packages. It is a few small files, created in milliseconds; creating it again changes nothing.
    """
    facts = _facts(environment.python)
    site_packages = folder / "lib" / f"python{facts['version']}" / "site-packages"
    site_packages.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("python", "python3"):
        link = folder / "bin" / name
        if not link.is_symlink():
            link.symlink_to(facts["base"])
    (folder / "pyvenv.cfg").write_text(
        f"home = {Path(facts['base']).parent}\ninclude-system-site-packages = false\n"
        f"version = {facts['version']}\n"
    )
    lines = "".join(
        f"import site; site.addsitedir({path!r})\n" for path in facts["site_packages"].split(os.pathsep)
    )
    (site_packages / "image.pth").write_text(lines)
    return replace(environment, folder=folder, python_path=None)


@cache
def _facts(python: Path) -> Mapping[str, str]:
    """`version` (major.minor), `base` (the environment's base interpreter), `site_packages` (a path list)."""
    script = (
        "import os, site, sys; print('%d.%d' % sys.version_info[:2]); "
        "print(os.path.realpath(sys.executable)); print(os.pathsep.join(site.getsitepackages()))"
    )
    output = subprocess.run(
        [str(python), "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    version, base, site_packages = output.stdout.splitlines()
    return {"version": version, "base": base, "site_packages": site_packages}


def _read(path: Path) -> list[_Entry]:
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ImagesFileError(f"cannot read the images file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ImagesFileError(f"the images file {path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ImagesFileError(f"the images file {path} needs a list 'images' of 'match' and 'environment'")
    named = os.environ.get(ENVIRONMENTS_VARIABLE)
    base = Path(named) if named else path.resolve().parent / content.get("environments", ".")
    return [_entry(path, base, item) for item in content["images"]]


def _entry(path: Path, base: Path, item: Any) -> _Entry:
    try:
        code = item.get("python_path")
        return _Entry(
            re.compile(item["match"]),
            Path(os.path.normpath(base / item["environment"])),
            None if code is None else (path.resolve().parent / code).resolve(),
            {str(name): str(value) for name, value in item.get("variables", {}).items()},
            str(item.get("server", TORCHSERVE)),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ImagesFileError(f"{path}: each image needs 'match' and 'environment', got {item!r}") from error
    except re.error as error:
        raise ImagesFileError(f"{path}: {item['match']!r} is not a regular expression: {error}") from error
