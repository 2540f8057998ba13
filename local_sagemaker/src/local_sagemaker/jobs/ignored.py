"""Members of requests that a machine has no counterpart for: accepted, described, and named in the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MEMBERS = (
    "VpcConfig",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "KmsKeyId",
    "VolumeKmsKeyId",
)


def log_ignored(log: Path, *requests: Mapping[str, Any]) -> None:
    """Begin a container's log with the members of its requests that have no effect here, if there are any."""
    names = sorted({name for request in requests for name in _given(request)})
    if names and not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"local SageMaker: {', '.join(names)} accepted, without effect on this machine\n")


def _given(value: Any) -> Iterator[str]:
    """The names of such members in a request, at any depth, unless they are false or empty."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            if name in _MEMBERS and member:
                yield name
            elif not name.startswith("_"):
                yield from _given(member)
    elif isinstance(value, list):
        for member in value:
            yield from _given(member)
