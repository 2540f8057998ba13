"""What every part of the local SageMaker shares: settings, the store, and where things are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from local_sagemaker.store import Store

Request = dict[str, Any]
Answer = dict[str, Any]
Operation = Callable[[Request], Answer]

ACCOUNT = "123456789012"  # moto's STS answers the same account


@dataclass(frozen=True)
class Settings:
    """Where the runtime keeps its state and listens. `images` maps image names to environments."""

    root: Path
    images: Path
    host: str = "127.0.0.1"
    port: int = 4600
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        """The address under which jobs on this machine reach the runtime."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Context:
    """Handed to every service. `folder(kind, name)` is a resource's own place on disk."""

    settings: Settings
    store: Store
    clock: Callable[[], float] = field(default=time.time)

    def arn(self, resource_type: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.settings.region}:{ACCOUNT}:{resource_type}/{name}"

    def folder(self, kind: str, name: str) -> Path:
        return self.settings.root / kind / name


class Service(Protocol):
    """One family of operations. A service validates nothing that the protocol layer has already validated."""

    def operations(self) -> Mapping[str, Operation]:
        """Operation name → handler; requests arrive parsed and validated, answers go out serialised."""
        ...

    def resume(self) -> None:
        """After a start: pick up what was running when the last process ended."""
        ...

    def close(self) -> None:
        """Before the process ends: stop own threads; what must survive (jobs) keeps running."""
        ...
