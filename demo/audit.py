"""`make audit`: known vulnerabilities of everything that a file pins, by pip-audit and the database of OSV.

Exceptions are in `audit-exceptions.toml`: the vulnerability, the package, and why it does not matter here.
What AWS's images and managed Airflow bring is not in question: AWS patches those.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = ROOT / "audit-exceptions.toml"
PINNED = (
    "requirements.txt",
    "requirements-compose.txt",
    "requirements-dev.txt",
    "requirements-audit.txt",
    "local_sagemaker/requirements.txt",
    "local_sagemaker/images/pytorch/requirements.txt",
    "sagemaker_code/wheels.txt",
)
OSV = "https://api.osv.dev/v1/query"
FOUND, COULD_NOT_TELL = 1, 2  # exit status


class CouldNotTellError(Exception):
    """pip-audit came to no verdict; the text is its reason."""


@dataclass(frozen=True)
class Vulnerability:
    """A vulnerability of a pinned package. `names` are its ids in all databases."""

    package: str
    version: str
    names: frozenset[str]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        remedy = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "not fixed yet"
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))} ({remedy})"


def vulnerabilities(tool: Path, file: Path, osv: str) -> tuple[int, list[Vulnerability]]:
    """How many packages a file pins, and what is known of them. Raises CouldNotTellError."""
    command = [
        str(tool),
        "--requirement",
        str(file),
        "--no-deps",
        "--disable-pip",
        "--strict",
        "--timeout",
        "30",
    ]
    command += ["--vulnerability-service", "osv", "--osv-url", osv]
    command += ["--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        lines = ended.stderr.strip().splitlines()
        raise CouldNotTellError(lines[-1] if lines else f"it ended with {ended.returncode}") from error
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        raise CouldNotTellError(f"nothing is known about {', '.join(skipped)}")
    return len(packages), [
        Vulnerability(
            package["name"],
            package["version"],
            frozenset([found["id"], *found["aliases"]]),
            tuple(found["fix_versions"]),
        )
        for package in packages
        for found in package["vulns"]
    ]


def exceptions(path: Path) -> dict[tuple[str, str], str]:
    """Package and vulnerability → reason. Raises KeyError for an entry without all three."""
    entries = tomllib.loads(path.read_text()).get("exception", [])
    return {(entry["package"], entry["id"]): entry["reason"] for entry in entries}


def audit(tool: Path, files: Sequence[Path], excepted: Mapping[tuple[str, str], str], osv: str = OSV) -> int:
    """Print a verdict for every file; the exit status is 0, FOUND or COULD_NOT_TELL."""
    status, used = 0, set()
    for file in files:
        try:
            count, found = vulnerabilities(tool, file, osv)
        except CouldNotTellError as error:
            print(f"{file}: could not tell: {error}", flush=True)
            status = status or COULD_NOT_TELL
            continue
        by_exception = {one: {(one.package, name) for name in one.names} & excepted.keys() for one in found}
        used |= {key for keys in by_exception.values() for key in keys}
        open_ones = [one for one, keys in by_exception.items() if not keys]
        accepted = len(found) - len(open_ones)
        print(
            f"{file}: {count} packages, {len(open_ones)} vulnerabilities, {accepted} exceptions", flush=True
        )
        for one in open_ones:
            print(f"  {one}", flush=True)
        status = FOUND if open_ones else status
    if status != COULD_NOT_TELL and (unused := excepted.keys() - used):
        print(f"no longer needed in {EXCEPTIONS.name}: {', '.join(map(' '.join, sorted(unused)))}")
        status = FOUND
    print({0: "no known vulnerabilities", FOUND: "vulnerable", COULD_NOT_TELL: "could not tell"}[status])
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[Path(name) for name in PINNED])
    parser.add_argument("--exceptions", type=Path, default=EXCEPTIONS)
    parser.add_argument("--osv-url", default=OSV, help="another place of the database")
    options = parser.parse_args(arguments)
    local = Path(os.environ.get("LOCAL_DIR") or ROOT / ".local")
    tool = local / "envs" / "audit" / "bin" / "pip-audit"
    return audit(tool, options.files, exceptions(options.exceptions), options.osv_url)


if __name__ == "__main__":
    sys.exit(main())
