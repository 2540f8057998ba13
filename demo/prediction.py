"""Sends images to the endpoint, the way any client of SageMaker does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.aws import Aws
from demo.settings import DemoError

CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True)
class EndpointResponse:
    """The endpoint's response to one image; `predictions` are sorted, the most probable first."""

    image: str
    expected: str
    predictions: Sequence[dict[str, Any]]

    @property
    def right(self) -> bool:
        return bool(self.predictions) and self.predictions[0]["class"] == self.expected


def images(dataset: Path, count: int) -> list[Path]:
    """Up to `count` images of the test set, one of each class before any class's second."""
    classes = [
        sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for folder in sorted((dataset / "test").iterdir())
        if folder.is_dir()
    ]
    deepest = max(map(len, classes), default=0)
    rounds = [folder[index] for index in range(deepest) for folder in classes if index < len(folder)]
    return rounds[:count]


def predict(aws: Aws, endpoint: str, image: Path) -> EndpointResponse:
    """Raises DemoError where the endpoint does not respond."""
    content_type = CONTENT_TYPES.get(image.suffix.lower(), "application/x-image")
    try:
        response = aws.runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType=content_type,
            Accept="application/json",
            Body=image.read_bytes(),
        )
    except (ClientError, BotoCoreError) as error:
        raise DemoError(f"The endpoint {endpoint} did not respond to {image}: {error}") from error
    body = json.loads(response["Body"].read())
    return EndpointResponse(image.name, image.parent.name, body["predictions"])
