"""Fixtures for the Airflow side: a local SageMaker behind the connection `aws_default`, small images."""

from __future__ import annotations

from tests.dags.airflow_home import BUCKET, REPOSITORY, connected_runtime, use_temporary_home

use_temporary_home()

import io  # noqa: E402
import tarfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from PIL import Image  # noqa: E402
from retraining.aws.clients import Aws  # noqa: E402
from retraining.config.params import RunSettings, form  # noqa: E402
from retraining.config.pipeline import Pipeline, load_pipeline  # noqa: E402

from tests.local_sagemaker.runtime_process import RuntimeProcess  # noqa: E402

INFERENCE_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4"
TRAINING_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6-cpu-py312"

MakeSettings = Callable[..., RunSettings]


@pytest.fixture(scope="session")
def runtime() -> RuntimeProcess:
    return connected_runtime()


@pytest.fixture
def aws(runtime: RuntimeProcess) -> Aws:
    """The services as a task reaches them: through the Airflow connection."""
    return Aws()


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return load_pipeline(REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml")


@pytest.fixture
def make_settings(pipeline: Pipeline) -> MakeSettings:
    """The form's values: the defaults, changed by keyword."""

    def make(**changes: Any) -> RunSettings:
        values = {name: field.resolve() for name, field in form(pipeline).items()}
        return RunSettings.from_params({**values, **changes})

    return make


def image_bytes(colour: tuple[int, int, int] = (200, 30, 30), size: int = 48, format_: str = "JPEG") -> bytes:
    """An image file of one colour with a darker corner."""
    image = Image.new("RGB", (size, size), colour)
    image.paste((0, 0, 0), (0, 0, size // 2, size // 2))
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


@pytest.fixture
def upload(runtime: RuntimeProcess) -> Callable[[str, dict[str, bytes]], None]:
    """Put files under a prefix of the bucket: `upload("mine", {"train/a/1.jpg": content})`."""
    s3 = runtime.client("s3")

    def put(prefix: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content)

    return put


def dataset_files(classes: tuple[str, ...] = ("001.Red", "002.Blue"), count: int = 3) -> dict[str, bytes]:
    """A valid dataset: `count` images of every class in every split."""
    colours = [(200, 30, 30), (30, 30, 200), (30, 200, 30)]
    return {
        f"{split}/{label}/{n}.jpg": image_bytes(colours[place % 3], 48 + n)
        for split in ("train", "valid", "test")
        for place, label in enumerate(classes)
        for n in range(count)
    }


def archive(**files: str) -> bytes:
    """A tar.gz; a double underscore in a name stands for a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/") + ".py")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()
