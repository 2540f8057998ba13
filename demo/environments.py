"""Builds the Python environments from the pinned requirement files, once.

Runs under the system's Python before any environment exists, so it uses only the standard library. Each
environment has a stamp with the hashes of the files that it was installed from. If they match, nothing is
done; if they differ, or an installation was interrupted, the environment is updated.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_VERSION = "3.11"  # of the product's own environments
UV_VERSION = "0.13.9"
DEVELOPMENT_PINS = Path("requirements-dev.txt")
STAMP = ".installed.json"


class SetupError(Exception):
    """An environment cannot be built; the text says what is missing and what to do."""


class PythonMissingError(SetupError):
    """The version of Python that an environment needs is not on this machine."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, named after its folder.

    `pins` are requirement files and `project` is the folder of a package installed in editable mode, all as
    paths from the repository root; `constraints` are files of versions that apply to what is installed;
    `disk_gb` is the space that a new environment needs, `python` its version of Python.
    """

    name: str
    title: str
    pins: tuple[Path, ...]
    disk_gb: float
    project: Path | None = None
    constraints: tuple[Path, ...] = ()
    python: str = PYTHON_VERSION


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            "airflow",
            "Airflow's environment",
            (Path("requirements.txt"),),
            disk_gb=2.3,
        ),
        Environment(
            "sagemaker",
            "the local SageMaker's environment",
            (Path("local_sagemaker/requirements.txt"),),
            disk_gb=0.5,
            project=Path("local_sagemaker"),
        ),
        Environment(
            "training",
            "the training container's environment",
            (Path("local_sagemaker/images/pytorch/requirements.txt"),),
            disk_gb=9.0,
        ),
        Environment(
            "audit",
            "pip-audit's environment",
            (Path("requirements-audit.txt"),),
            disk_gb=0.2,
        ),
        *(
            Environment(
                f"airflow-{python}",
                f"Airflow's environment on Python {python}",
                (Path("requirements.txt"),),
                disk_gb=2.3,
                python=python,
            )
            for python in ("3.12", "3.13")
        ),
        *(
            Environment(
                f"mwaa-{version}",
                f"managed Airflow {version}",
                (Path("requirements-mwaa.txt"),),
                disk_gb=2.0,
                constraints=(Path(f"tests/airflow_versions/mwaa-{version}.txt"),),
                python="3.12",
            )
            for version in ("3.0.6", "3.2.1", "3.3.1")
        ),
        *(
            Environment(
                f"image-{name}",
                f"AWS's image {name}",
                (Path(f"tests/aws_images/requirements/{name}.txt"),),
                disk_gb=7.0,
                python=python,
            )
            for name, python in (
                ("training-2.13", "3.12"),
                ("training-2.10", "3.13"),
                ("ray-serve", "3.13"),
                ("torchserve", "3.12"),
            )
        ),
    )
}


def check_python() -> None:
    """Raise SetupError unless this is the Python of the product's own environments."""
    if _version_of_this_python() != PYTHON_VERSION:
        raise SetupError(
            f"Python {PYTHON_VERSION} is needed, and {sys.executable} is {sys.version.split()[0]}. "
            f"Install Python {PYTHON_VERSION}, or name it: make PYTHON=/path/to/python{PYTHON_VERSION}"
        )


def find_python(version: str, uv: Path) -> Path:
    """An interpreter of this version: this one, or one that uv finds (its own, pyenv's, on the PATH).

    Raises PythonMissingError where there is none.
    """
    if version == _version_of_this_python():
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in sorted(pyenv.glob(f"{version}.*/bin/python")):
        if works(python):
            return python
    found = subprocess.run(
        [uv, "python", "find", "--no-project", "--no-python-downloads", version],
        check=False,
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise PythonMissingError(
            f"Python {version} was not found, with pyenv, uv or on the PATH: "
            f"`uv python install {version}` installs it."
        )
    return Path(found.stdout.strip())


def _version_of_this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def pin_hashes(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each requirement file by its path from the repository root."""
    return {str(file): hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in files}


def package_count(files: Sequence[Path]) -> int:
    """The number of packages that the requirement files pin."""
    lines = (line for file in files for line in (ROOT / file).read_text().splitlines())
    return len({line.partition("==")[0] for line in lines if line[:1].isalnum()})


def environment_python(folder: Path) -> Path:
    return folder / "bin" / "python"


def installed(folder: Path) -> dict[str, str]:
    """The stamp's hashes; empty for an environment that is absent, interrupted, or moved since."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    usable = stamp.get("location") == str(folder) and environment_python(folder).exists()
    return dict(stamp["pins"]) if usable else {}


def write_stamp(folder: Path, pins: dict[str, str]) -> None:
    partial = folder / f"{STAMP}.part"
    partial.write_text(json.dumps({"location": str(folder), "pins": pins}, indent=1))
    partial.replace(folder / STAMP)


@contextmanager
def exclusively(lock_file: Path) -> Iterator[None]:
    """Hold a lock while building, so that two calls do not write into one environment."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  waiting for another set-up to finish", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def step(text: str) -> Iterator[None]:
    """One progress line: what is being done, then how long it took."""
    started = time.monotonic()
    print(f"  {text} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print(f"stopped after {time.monotonic() - started:.1f} s", flush=True)
        raise
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def run(command: Sequence[str | Path], log: Path, hint: str) -> None:
    """Run a command with its output in `log`; SetupError carries the output's end and `hint`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a+") as output:
        print("$", *command, file=output, flush=True)
        begin = output.tell()
        code = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
        if code:
            output.seek(begin)
            tail = "".join(output.readlines()[-15:]).rstrip()
            raise SetupError(
                f"{Path(command[0]).name} ended with status {code}. {hint}\n{tail}\nWhole log: {log}"
            )


def works(python: Path) -> bool:
    return (
        python.exists()
        and subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0
    )


def uv_version(uv: Path) -> str:
    """The version of the uv at this path; empty if it does not run."""
    if not uv.exists():
        return ""
    version = subprocess.run([uv, "--version"], check=False, capture_output=True, text=True)
    return version.stdout.split()[1] if version.returncode == 0 else ""


def build_tools(local: Path) -> Path:
    """Put the pinned uv into its own environment and return its path."""
    folder, log = local / "tools", local / "logs" / "setup.log"
    uv = folder / "bin" / "uv"
    if uv_version(uv) == UV_VERSION:
        return uv
    with step(f"uv {UV_VERSION}"):
        run(
            [sys.executable, "-m", "venv", "--clear", folder],
            log,
            "On Debian and Ubuntu, install the package python3.11-venv (or python3-venv).",
        )
        run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}"],
            log,
            "Is the Python package index reachable?",
        )
    return uv


def check_disk(local: Path, environment: Environment) -> None:
    free = shutil.disk_usage(local).free / 1e9
    if free < environment.disk_gb:
        raise SetupError(
            f"{environment.title} needs {environment.disk_gb:.1f} GB, and {local} has {free:.1f} GB free. "
            "Free some space, or choose another place: make LOCAL_DIR=/path/with/space"
        )


def build(environment: Environment, local: Path, *, development: bool) -> bool:
    """Bring one environment up to date; False where it already was."""
    files = environment.pins + ((DEVELOPMENT_PINS,) if development else ())
    constraints = environment.constraints
    folder, log = local / "envs" / environment.name, local / "logs" / "setup.log"
    project = [] if environment.project is None else [environment.project]
    wanted = pin_hashes([*files, *constraints, *(path / "pyproject.toml" for path in project)])
    present = installed(folder)
    if wanted.items() <= present.items():
        return False
    uv = build_tools(local)
    with step(f"{environment.title}, {package_count(files)} packages"):
        if not works(environment_python(folder)):
            check_disk(local, environment)
            python = find_python(environment.python, uv)
            run([uv, "venv", "--clear", "--seed", "--python", python, folder], log, "")
        (folder / STAMP).unlink(missing_ok=True)
        requirements = [part for file in files for part in ("--requirements", str(file))]
        requirements += [part for file in constraints for part in ("--constraints", str(file))]
        run(
            [
                uv,
                "pip",
                "install",
                "--compile-bytecode",
                "--python",
                environment_python(folder),
                *requirements,
                *(part for path in project for part in ("--editable", str(path))),
            ],
            log,
            "Is the Python package index reachable, and is there space on the disk?",
        )
        write_stamp(folder, present | wanted)
    return True


def set_up(
    names: Sequence[str], local: Path, *, development: bool = False, skip_missing_python: bool = False
) -> None:
    """Build what is missing of the named environments under `local`; quick where nothing is.

    Raises SetupError for one that cannot be built, unless only its Python is missing and that may be skipped.
    """
    check_python()
    local.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with exclusively(local / "setup.lock"):
        built = []
        for name in names:
            try:
                built.append(build(ENVIRONMENTS[name], local, development=development))
            except PythonMissingError as error:
                if not skip_missing_python:
                    raise
                print(f"  skipped {ENVIRONMENTS[name].title}: {error}", flush=True)
    if any(built):
        print(f"  environments ready in {time.monotonic() - started:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument(
        "names", nargs="+", choices=list(ENVIRONMENTS), metavar="name", help=f"of {', '.join(ENVIRONMENTS)}"
    )
    parser.add_argument("--local", type=Path, default=Path(os.environ.get("LOCAL_DIR") or ROOT / ".local"))
    parser.add_argument("--development", action="store_true", help="with the tools that `make test` needs")
    parser.add_argument(
        "--skip-missing-python", action="store_true", help="leave out those whose Python is not here"
    )
    options = parser.parse_args(arguments)
    try:
        set_up(
            options.names,
            options.local.absolute(),
            development=options.development,
            skip_missing_python=options.skip_missing_python,
        )
    except SetupError as error:
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted; the next call goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
