"""Runs the tests of the containers' code in the environments of AWS's images (`make test-aws-images`).

The last line is a verdict with figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from demo.environments import ENVIRONMENTS, ROOT

TESTS = {
    "image-training-2.13": ("tests/sagemaker_code", "tests/aws_images/test_training.py"),
    "image-training-2.10": ("tests/sagemaker_code", "tests/aws_images/test_training.py"),
    "image-ray-serve": ("tests/aws_images/test_ray_serve.py",),
    "image-torchserve": ("tests/aws_images/test_torchserve.py",),
}


def run(name: str, python: Path, folder: Path) -> Counter[str]:
    """The outcomes of an image's tests: passed, failed (with errors), skipped."""
    report = folder / f"{name}.xml"
    print(f"\n== {ENVIRONMENTS[name].title}, Python {ENVIRONMENTS[name].python}", flush=True)
    options = [
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--junit-xml",
        str(report),
        "--basetemp",
        str(folder / name[6:]),
    ]
    code = subprocess.run([python, "-m", "pytest", *options, *TESTS[name]], cwd=ROOT, check=False).returncode
    counts: Counter[str] = Counter()
    for suite in ElementTree.parse(report).iter("testsuite") if report.exists() else ():  # noqa: S314
        broken = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        counts["failed"] += broken
        counts["skipped"] += int(suite.get("skipped", 0))
        counts["passed"] += int(suite.get("tests", 0)) - broken - int(suite.get("skipped", 0))
    if code and not counts["failed"]:
        counts["failed"] += 1  # pytest itself
    return counts


def main() -> int:
    local = Path(os.environ.get("LOCAL_DIR") or ROOT / ".local").absolute()
    total: Counter[str] = Counter()
    images = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in TESTS:
            python = local / "envs" / name / "bin" / "python"
            if python.exists():
                images += 1
                total += run(name, python, Path(folder))
    missing = len(TESTS) - images
    skipped = f", {missing} skipped for want of their Python" if missing else ""
    print(
        f"\n{images} images of AWS's{skipped}: {total['passed']} passed, {total['skipped']} skipped, "
        f"{total['failed']} failed"
    )
    return 1 if total["failed"] or not images else 0


if __name__ == "__main__":
    sys.exit(main())
