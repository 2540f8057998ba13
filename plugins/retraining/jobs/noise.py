"""Lines of a job's log that say nothing about the script: left out of the task's log, kept in CloudWatch's.

They are those of AWS's training toolkit, which prints its whole environment, and of libraries that look for a
GPU where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

_ALONE = re.compile(
    r"^\S+ \S+ sagemaker[\w.-]* +INFO "
    r"|^Returning the value itself$"
    r"|gpuGetDeviceCount failed"
    r"|^USDT:"
    r"|The detailed profiling using autograd profiler is not supported"
)
_BEGINNING = re.compile(r"^(Training Env|Environment variables):$")
_WITHIN = re.compile(r'^([\s{}\[\]"]|(SM_|PYTHONPATH)[\w-]*=|$)')
"""What may follow a beginning: JSON and variables. Any other line ends the block, and is the script's."""


def without_noise(lines: Iterable[str], position: dict[str, Any]) -> Iterator[str]:
    """The other lines. `position` remembers between calls whether the last line was within a block."""
    for line in lines:
        text = line.rstrip()
        if _BEGINNING.match(text):
            position["noise"] = True
        elif position.get("noise") and _WITHIN.match(text):
            continue
        elif not _ALONE.search(text):
            position["noise"] = False
            if text:
                yield line
