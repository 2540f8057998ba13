"""What every service is given: settings, the store, the clock, ARNs and folders; and what an operation is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from local_sagemaker.paths import below
from local_sagemaker.store import Store

Request = dict[str, Any]
Response = dict[str, Any]
Operation = Callable[[Request], Response]

ACCOUNT = "123456789012"  # as moto's STS says


@dataclass(frozen=True)
class Credentials:
    """A pair of AWS keys."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """Where the runtime keeps its state and listens, and to whom it answers.

    `images` maps image names to environments. `allowed_hosts` are the names, beside this machine's own, by
    which clients may address it. `credentials`, kept in `credentials_file`, are given to jobs and endpoints;
    with `require_signatures` a request has to be signed with them.
    """

    root: Path
    images: Path
    host: str = "127.0.0.1"
    port: int = 4600
    region: str = "us-east-1"
    allowed_hosts: tuple[str, ...] = ()
    require_signatures: bool = False
    credentials: Credentials = Credentials("local", "local")
    own_credentials_file: Path | None = None

    @property
    def credentials_file(self) -> Path:
        return self.own_credentials_file or self.root / "credentials.json"

    @property
    def url(self) -> str:
        """The address under which jobs on this machine reach the runtime."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Context:
    """Given to every service. `folder(kind, name)` is a resource's own folder on disk."""

    settings: Settings
    store: Store
    clock: Callable[[], float] = field(default=time.time)

    def arn(self, resource_type: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self.settings.region}:{ACCOUNT}:{resource_type}/{name}"

    def folder(self, kind: str, name: str) -> Path:
        return below(self.settings.root / kind, name)


class Service(Protocol):
    """What runs beside the requests: jobs, endpoints, and the state of other AWS services."""

    def resume(self) -> None:
        """After a start: pick up what was running when the last process ended."""
        ...

    def close(self) -> None:
        """Before the process ends: stop own threads; jobs keep running."""
        ...
