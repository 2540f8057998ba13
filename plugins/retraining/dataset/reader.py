"""The reader of images that the training code has, loaded from it: check and training read alike."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from retraining.config.source import source_folder
from retraining.errors import PlanError

if TYPE_CHECKING:
    from PIL import Image


class Reader(Protocol):
    """`classifier/reader.py` of the code that the run packs: what it cannot read, the training cannot."""

    FORMATS: tuple[str, ...]
    MIN_SIDE: int

    def is_image_name(self, name: str) -> bool: ...

    def open_image(self, source: BinaryIO) -> Image.Image: ...

    def upright(self, image: Image.Image, side: int) -> Image.Image: ...

    def to_rgb(self, image: Image.Image) -> Image.Image: ...


@cache
def image_reader() -> Reader:
    """Load the reader. Raises PlanError where the code for the containers is not found."""
    path = source_folder() / "classifier" / "reader.py"
    spec = importlib.util.spec_from_file_location("classifier_reader", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PlanError(f"There is no {path}, with which images are read: take it from the project's code.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Reader", module)
