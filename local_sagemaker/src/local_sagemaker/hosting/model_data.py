"""A model's files: their location in S3 by the container definition, and their download."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from local_sagemaker.archives import unpack
from local_sagemaker.channels import ChannelError, relative_path
from local_sagemaker.errors import ValidationError
from local_sagemaker.paths import UnsafePathError, below
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError, Objects, split_uri
from local_sagemaker.store import Document

SUBMIT_DIRECTORY = "SAGEMAKER_SUBMIT_DIRECTORY"


class ModelDataError(Exception):
    """The model's files could not be downloaded; the text ends the endpoint's FailureReason."""


@dataclass(frozen=True)
class ModelData:
    """Where a model's files are: a tar.gz object or, with `prefix`, a prefix of uncompressed objects."""

    uri: str
    prefix: bool = False

    @classmethod
    def of(cls, container: Document) -> ModelData | None:
        """The location in a container definition; None for a model without files. Raises ValidationError."""
        source = container.get("ModelDataSource", {}).get("S3DataSource")
        uri = source["S3Uri"] if source else container.get("ModelDataUrl")
        if uri is None:
            return None
        if not uri.startswith("s3://"):
            raise ValidationError(f"The model data URL {uri!r} must be an S3 URI: s3://bucket/key.")
        if source and source["CompressionType"] not in {"None", "Gzip"}:
            raise ValidationError(
                f"Model data compressed with {source['CompressionType']!r} cannot be read here."
            )
        return cls(uri, bool(source) and source["CompressionType"] == "None")

    def exists(self, objects: Objects) -> bool:
        try:
            return bool(objects.list(self.uri)) if self.prefix else objects.exists(self.uri)
        except BucketMissingError:
            return False

    def place(self, objects: Objects, folder: Path) -> None:
        """Fill `folder` with the files. Raises ModelDataError."""
        try:
            if self.prefix:
                self._copy(objects, folder)
            else:
                _unpack_object(objects, self.uri, folder)
        except (ObjectMissingError, BucketMissingError) as error:
            raise ModelDataError(f"Could not find model data at {self.uri}.") from error
        except (ChannelError, UnsafePathError) as error:
            raise ModelDataError(f"Could not copy the model data at {self.uri}: {error}.") from error
        except (tarfile.TarError, OSError) as error:
            raise ModelDataError(
                f"Could not unpack the model data at {self.uri} as a model.tar.gz: {error}"
            ) from error

    def _copy(self, objects: Objects, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        prefix = split_uri(self.uri)[1]
        for item in objects.list(self.uri):
            path = relative_path(item.key, prefix)
            if path.parts:
                objects.download(item.uri, below(folder, str(path)))


def place_model(container: Document, objects: Objects, folder: Path) -> None:
    """Make `folder` the container's /opt/ml/model, completely or not at all; an existing folder is kept.

    A `SAGEMAKER_SUBMIT_DIRECTORY` in S3 (a sourcedir.tar.gz) replaces the model's own `code/`.
    Raises ModelDataError.
    """
    if folder.exists():
        return
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    data = ModelData.of(container)
    if data is not None:
        data.place(objects, draft)
    source = container.get("Environment", {}).get(SUBMIT_DIRECTORY, "")
    if source.startswith("s3://"):
        shutil.rmtree(draft / "code", ignore_errors=True)
        ModelData(source).place(objects, draft / "code")
    draft.replace(folder)


def _unpack_object(objects: Objects, uri: str, folder: Path) -> None:
    archive = folder.with_name(folder.name + ".tar.gz")
    objects.download(uri, archive)
    try:
        unpack(archive, folder)
    finally:
        archive.unlink()
