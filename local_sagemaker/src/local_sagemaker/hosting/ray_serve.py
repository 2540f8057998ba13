"""What AWS's Ray Serve image does with a model archive, for one replica and without Ray.

`config.yaml` names an application, `module:app`, made by `@serve.deployment` and `.bind(...)`. Its class is
made once and called with each request (starlette's); what it returns becomes the response. Archives import
`ray`; where it is not installed, a stand-in provides `ray.serve.deployment`. What is not supported is refused
by name: several applications, other routes, deployments that call each other, ASGI apps, batching.

Runs in the image's environment, as serve.py does, and imports nothing of the local runtime.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

CONFIG = "config.yaml"
APP_VARIABLE = "SM_RAYSERVE_APP"
_PASSED_ON = "x-amzn-sagemaker-"  # response headers that AWS's adapter passes on, beside Content-Type


class ArchiveError(ValueError):
    """The archive's application cannot be served here; the text says why."""


@dataclass(frozen=True)
class Application:
    """A deployment with the arguments of its class: what `.bind` returns."""

    make: Callable[..., Any]
    arguments: tuple[Any, ...]
    members: Mapping[str, Any]


@dataclass(frozen=True)
class Deployment:
    """What `@serve.deployment` makes of a class or function. Options size a cluster and are ignored here."""

    func_or_class: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def options(self, **settings: Any) -> Deployment:
        return Deployment(self.func_or_class, {**self.settings, **settings})

    def bind(self, *arguments: Any, **members: Any) -> Application:
        if any(isinstance(value, Application) for value in (*arguments, *members.values())):
            raise ArchiveError("deployments that call other deployments are not supported locally")
        return Application(self.func_or_class, arguments, members)


def load(model_dir: Path) -> Callable[[Mapping[str, str], bytes], tuple[int, bytes, dict[str, str]]]:
    """Import and make the application; a function from a request's headers and body to the response.

    The function may be called from several threads: all requests are in one event loop, as on a replica.
    Raises ArchiveError, or what the application raises.
    """
    sys.path[:0] = [str(model_dir), str(model_dir / "code")]
    if importlib.util.find_spec("ray") is None:
        _stand_in()
    name = _import_path(model_dir)
    module, _, attribute = name.partition(":")
    app = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(app, Application):
        raise ArchiveError(
            f"{name} is no application made by a deployment's bind(), but {type(app).__name__}"
        )
    handler = app.make
    if isinstance(handler, type):
        handler = handler(*app.arguments, **app.members)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="application", daemon=True).start()

    def respond(headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        return asyncio.run_coroutine_threadsafe(_respond(handler, headers, body), loop).result()

    return respond


def _import_path(model_dir: Path) -> str:
    """`module:app`, from the archive or from the variable that AWS's image reads without it."""
    import yaml  # noqa: PLC0415 - in the image's environment

    try:
        content = yaml.safe_load((model_dir / CONFIG).read_text())
    except FileNotFoundError:
        if named := os.environ.get(APP_VARIABLE):
            return named
        raise ArchiveError(
            f"model.tar.gz has no {CONFIG} at its top, and {APP_VARIABLE} is not set: AWS's image for Ray "
            "Serve needs one of them"
        ) from None
    applications = content.get("applications") if isinstance(content, dict) else None
    if not isinstance(applications, list) or len(applications) != 1:
        raise ArchiveError(f"{CONFIG} must list one application")
    [application] = applications
    if application.get("route_prefix", "/") != "/":
        raise ArchiveError(f"{CONFIG}: route_prefix must be /, because SageMaker's requests arrive there")
    return str(application["import_path"])


async def _respond(
    handler: Callable[..., Any], headers: Mapping[str, str], body: bytes
) -> tuple[int, bytes, dict[str, str]]:
    from starlette.requests import Request  # noqa: PLC0415 - in the image's environment
    from starlette.responses import Response  # noqa: PLC0415

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    result = handler(Request(scope, receive))
    if isinstance(result, Awaitable):
        result = await result
    if isinstance(result, Response):
        passed = {k: v for k, v in result.headers.items() if k.lower().startswith(_PASSED_ON)}
        return (
            result.status_code,
            bytes(result.body),
            {"Content-Type": result.headers["content-type"], **passed},
        )
    if isinstance(result, str):
        return 200, result.encode(), {"Content-Type": "text/plain"}
    if isinstance(result, bytes):
        return 200, result, {"Content-Type": "application/octet-stream"}
    return 200, json.dumps(result).encode(), {"Content-Type": "application/json"}


def _deployment(target: Callable[..., Any] | None = None, **settings: Any) -> Any:
    """`@serve.deployment`, with options or without."""
    if target is not None:
        return Deployment(target)
    return lambda decorated: Deployment(decorated, settings)


def _unsupported(name: str) -> Any:
    raise AttributeError(f"ray.serve.{name} is not supported locally: only deployment and bind are")


def _stand_in() -> None:
    ray, serve = ModuleType("ray"), ModuleType("ray.serve")
    vars(serve).update(deployment=_deployment, __getattr__=_unsupported)
    vars(ray).update(serve=serve, __path__=[])
    sys.modules.update({"ray": ray, "ray.serve": serve})
