"""The report about a check of the dataset: counts, changes, and thumbnails of offending images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from retraining.aws.s3 import content_of, write
from retraining.dataset.duplicates import Group
from retraining.dataset.findings import Findings, Problem, offending_groups
from retraining.dataset.images import thumbnail
from retraining.dataset.listing import SPLITS, DatasetImage
from retraining.html import data_uri, page_of
from retraining.runs.results import ChangeCounts, DatasetChanges

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_GROUPS = 24  # shown with thumbnails
_IMAGES = 4  # of a group
_SIDE = 224  # pixels of a thumbnail, twice its size on the page
_LINES = 100  # of a list of offending files
_THREADS = 8


@dataclass(frozen=True)
class Page:
    """Content of the page. `findings` is None if the check stopped before it read the images."""

    uri: str
    run: str
    counts: dict[str, Counter[str]]
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()
    changes: DatasetChanges | None = None
    findings: Findings | None = None


@dataclass(frozen=True)
class _Thumbnails:
    """A group on the page: what is wrong, its first images with their data: URIs, and how many follow."""

    title: str
    kind: str
    images: list[tuple[DatasetImage, str | None]]
    more: int


@dataclass(frozen=True)
class _Row:
    """A class in the table: by split, the number of images and the bar's length in percent; the changes."""

    label: str
    cells: list[tuple[int, float]]
    changes: ChangeCounts | None


def write_page(s3: S3Client, uri: str, bucket: str, prefix: str, page: Page) -> None:
    """Put the page into S3. For the thumbnails, the images of the first 24 groups are read again."""
    groups = offending_groups(page.findings) if page.findings else []
    shown = list(_with_thumbnails(s3, bucket, prefix, groups[:_GROUPS]))
    values = {
        "page": page,
        "splits": SPLITS,
        "totals": {split: page.counts[split].total() for split in SPLITS},
        "rows": list(_rows(page)),
        "groups": shown,
        "more_groups": len(groups) - len(shown),
        "lines": _LINES,
    }
    write(s3, uri, page_of("dataset.html.j2", values, {}).encode(), "text/html; charset=utf-8")


def _rows(page: Page) -> Iterator[_Row]:
    changed = page.changes["classes"] if page.changes else {}
    largest = {split: max(page.counts[split].values(), default=1) for split in SPLITS}
    labels = set().union(*page.counts.values(), changed)
    for label in sorted(labels):
        numbers = [(page.counts[split][label], largest[split]) for split in SPLITS]
        cells = [(number, 100 * number / most) for number, most in numbers]
        yield _Row(label, cells, changed.get(label))


def _with_thumbnails(
    s3: S3Client, bucket: str, prefix: str, groups: Sequence[tuple[str, Group]]
) -> Iterator[_Thumbnails]:
    wanted = [image for _, group in groups for image in islice(group.images, _IMAGES)]

    def small(image: DatasetImage) -> str | None:
        return _thumbnail(s3, bucket, f"{prefix}/{image.path}".lstrip("/"))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnail") as pool:
        uris = dict(zip((image.path for image in wanted), pool.map(small, wanted), strict=True))
    for title, group in groups:
        first = [(image, uris[image.path]) for image in islice(group.images, _IMAGES)]
        yield _Thumbnails(title, group.kind, first, len(group.images) - len(first))


def _thumbnail(s3: S3Client, bucket: str, key: str) -> str | None:
    """The thumbnail as a data: URI; None if the image was deleted or replaced since the check."""
    from botocore.exceptions import ClientError

    try:
        content = thumbnail(content_of(s3, bucket, key), _SIDE)
    except (ClientError, ValueError) as error:
        log.warning("No thumbnail of s3://%s/%s: %s", bucket, key, error)
        return None
    return data_uri(content, "image/jpeg")
