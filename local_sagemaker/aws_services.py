"""S3, IAM, STS, CloudWatch and Logs: moto's server as a WSGI app, with S3 and IAM kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def build_moto_app() -> Callable[..., Any]:
    """moto's WSGI app for every service that is not SageMaker."""
    os.environ.setdefault(
        "S3_IGNORE_SUBDOMAIN_BUCKETNAME", "true"
    )  # path style only, whatever the host's name
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415

    return DomainDispatcherApplication(create_backend_app)
