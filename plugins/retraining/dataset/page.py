"""The page about the check of a data set: counts, changes and pictures of the offenders, in one file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from retraining.aws.s3 import write
from retraining.dataset.findings import Findings, Problem, offending_groups
from retraining.dataset.images import DAMAGED, thumbnail
from retraining.dataset.listing import SPLITS, Picture
from retraining.html import data_uri, page_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_GROUPS = 24  # shown with pictures
_PICTURES = 4  # of a group
_SIDE = 224  # of a thumbnail, twice as many pixels as it takes on the page
_LINES = 100  # of a list of offenders
_THREADS = 8


@dataclass(frozen=True)
class Page:
    """What the page is about. A check that ended early has no findings."""

    uri: str
    run: str
    counts: dict[str, Counter[str]]
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()
    changes: Mapping[str, Any] | None = None
    findings: Findings | None = None


@dataclass(frozen=True)
class _Shown:
    """A group of pictures on the page: what is wrong, and the first pictures with their data: URIs."""

    title: str
    kind: str
    pictures: list[tuple[Picture, str | None]]
    more: int


@dataclass(frozen=True)
class _Row:
    """A class in the table: pictures by split with the bar's length in per cent, and the changes."""

    label: str
    cells: list[tuple[int, float]]
    changes: Mapping[str, int] = field(default_factory=dict)


def write_page(s3: S3Client, uri: str, bucket: str, prefix: str, page: Page) -> None:
    """Put the page into S3. Pictures of at most 24 groups of offenders are read again for it."""
    groups = offending_groups(page.findings) if page.findings else []
    shown = list(_with_pictures(s3, bucket, prefix, groups[:_GROUPS]))
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
        yield _Row(label, cells, changed.get(label, {}))


def _with_pictures(
    s3: S3Client, bucket: str, prefix: str, groups: Sequence[tuple[str, Any]]
) -> Iterator[_Shown]:
    wanted = [picture for _, group in groups for picture in islice(group.pictures, _PICTURES)]

    def small(picture: Picture) -> str | None:
        return _thumbnail(s3, bucket, f"{prefix}/{picture.path}".lstrip("/"))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnail") as pool:
        uris = dict(zip((picture.path for picture in wanted), pool.map(small, wanted), strict=True))
    for title, group in groups:
        first = [(picture, uris[picture.path]) for picture in islice(group.pictures, _PICTURES)]
        yield _Shown(title, group.kind, first, len(group.pictures) - len(first))


def _thumbnail(s3: S3Client, bucket: str, key: str) -> str | None:
    """The thumbnail as a data: URI; None for a picture that somebody deleted or replaced since the check."""
    from botocore.exceptions import ClientError

    try:
        content = thumbnail(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), _SIDE)
    except (ClientError, *DAMAGED) as error:
        log.warning("No thumbnail of s3://%s/%s: %s", bucket, key, error)
        return None
    return data_uri(content, "image/jpeg")
