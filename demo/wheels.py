"""Downloads the wheels that travel with the code to SageMaker (`make wheels`), as their hashes say.

Runs under the system's Python, like `demo.environments`.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from demo.environments import ROOT, SetupError, build_tools, exclusively, run, step

PINS = ROOT / "sagemaker_code" / "wheels.txt"
FOLDER = ROOT / "sagemaker_code" / "wheels"

OPTIONS = ("--no-deps", "--require-hashes", "--only-binary=:all:")


def complete() -> bool:
    """Whether the folder holds exactly the wheels that the pins name."""
    wanted = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", PINS.read_text()))
    present = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in FOLDER.glob("*")}
    return present == wanted


def download(local: Path) -> None:
    """Bring the folder up to date; quick where it is. Raises SetupError."""
    if complete():
        return
    with exclusively(local / "setup.lock"), step("wheels for the containers"):
        FOLDER.mkdir(exist_ok=True)
        for wheel in FOLDER.glob("*"):
            wheel.unlink()
        python = build_tools(local).with_name("python")
        run(
            [python, "-m", "pip", "download", "--quiet", *OPTIONS, "--dest", FOLDER, "--requirement", PINS],
            local / "logs" / "setup.log",
            "Is the Python package index reachable?",
        )


def main() -> int:
    local = Path(os.environ.get("LOCAL_DIR") or ROOT / ".local").absolute()
    try:
        download(local)
    except SetupError as error:
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
