"""Asks the endpoint for breeds, the way any client of SageMaker does."""

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
class Answer:
    """What the endpoint said about one picture; `predictions` are sorted, the most probable first."""

    image: str
    expected: str
    predictions: Sequence[dict[str, Any]]

    @property
    def right(self) -> bool:
        return bool(self.predictions) and self.predictions[0]["class"] == self.expected


def pictures(dataset: Path, count: int) -> list[Path]:
    """Up to `count` pictures of the test set, one of each class before any class's second."""
    classes = [
        sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for folder in sorted((dataset / "test").iterdir())
        if folder.is_dir()
    ]
    deepest = max(map(len, classes), default=0)
    rounds = [folder[index] for index in range(deepest) for folder in classes if index < len(folder)]
    return rounds[:count]


def ask(aws: Aws, endpoint: str, picture: Path) -> Answer:
    """Raises DemoError where the endpoint does not answer."""
    content_type = CONTENT_TYPES.get(picture.suffix.lower(), "application/x-image")
    try:
        answer = aws.runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType=content_type,
            Accept="application/json",
            Body=picture.read_bytes(),
        )
    except (ClientError, BotoCoreError) as error:
        raise DemoError(f"The endpoint {endpoint} did not answer for {picture}: {error}") from error
    body = json.loads(answer["Body"].read())
    return Answer(picture.name, picture.parent.name, body["predictions"])
