"""The check of the data set in S3, before anything is paid for.

What is read once stays known: a manifest in S3, shared by the pipeline's runs, says of every content, by ETag
and size, what it looks like. A check reads only what is new, so that next week's takes seconds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws, bucket_of, split_uri
from retraining.aws.s3 import link, write
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Dataset
from retraining.dataset import manifest
from retraining.dataset.changes import changes_since
from retraining.dataset.duplicates import Seen, find_duplicates
from retraining.dataset.findings import Problem, findings_of, problems_of, warnings_of
from retraining.dataset.images import Look
from retraining.dataset.listing import SPLITS, Listing, list_pictures, structure_problems
from retraining.dataset.page import Page, write_page
from retraining.dataset.reading import Version, read_new
from retraining.errors import DatasetError
from retraining.runs.context import RunLocation

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_LISTED = 20  # offenders named in an error; the log names all


@dataclass(frozen=True)
class _Source:
    """Where the data set is, and where this run writes about it."""

    s3: S3Client
    bucket: str
    prefix: str
    location: RunLocation

    @property
    def uri(self) -> str:
        """Without a slash at its end, also where the data set is a whole bucket."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def manifest(self) -> str:
        """URI of the run's manifest, to compare with."""
        return f"{self.location.output}/{manifest.FILE}"

    @property
    def cache(self) -> str:
        """URI of the manifest that the pipeline's runs share."""
        return self.location.shared_uri(manifest.FILE)

    @property
    def report(self) -> str:
        return self.location.dataset_report


def check_dataset(
    pipeline: Pipeline, settings: RunSettings, aws: Aws, location: RunLocation, last: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Check the whole data set, compare it with that of the last run, and put a page about it into S3.

    `last` is the record of the last run, `{"run": name, "dataset": {"manifest": uri}}`, if there was one.
    Returns `{uri, bucket, prefix, classes, images: {split: n}, counts: {split: {class: n}}, digest, manifest,
    warnings: [sentence], changes, report, report_url}`; `changes.py` has the form of `changes`, which
    are None without a last run. Raises DatasetError, which lists what is wrong and how to put it right; page
    and manifest are written then, too, if there is any picture.
    """
    bucket, prefix = location(settings, aws)
    for one in dict.fromkeys((bucket, location.bucket)):
        _check_bucket(aws.s3, one)
    source = _Source(aws.s3, bucket, prefix, location)
    listing = list_pictures(aws.s3, bucket, prefix)
    if not listing.pictures:
        raise DatasetError(
            f"There is no picture under {source.uri}/. Upload the data set there as train/<class>/<file>, "
            "valid/..., test/..., or name another place in the form or in the pipeline file."
        )
    counts = listing.counts()
    structure = tuple(structure_problems(listing, counts, pipeline.dataset))
    if structure:
        wrong = Problem("Splits and classes that are not complete", structure)
        _stop(source, [wrong], Page(source.uri, location.run, counts, problems=[wrong]))
    log.info("%s has %d pictures of %d classes", source.uri, len(listing.pictures), len(counts["train"]))
    return _checked(source, listing, counts, pipeline.dataset, last)


def location(settings: RunSettings, aws: Aws) -> tuple[str, str]:
    """Bucket and key prefix (without slashes at its ends) of the data set."""
    if settings.dataset_prefix.startswith("s3://"):
        return split_uri(settings.dataset_prefix)
    return bucket_of(aws, settings.bucket), settings.dataset_prefix.strip("/")


def _checked(
    source: _Source,
    listing: Listing,
    counts: dict[str, Counter[str]],
    limits: Dataset,
    last: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Look at the pictures of a data set whose structure is sound."""
    seen = _looked_at(source, listing)
    findings = findings_of(seen, find_duplicates([one for one in seen if not one[1].problem]))
    problems = problems_of(findings, counts, limits)
    warnings = warnings_of(findings, counts, listing.unused, limits)
    changes = _changes(source.s3, seen, last)
    for warning in warnings:
        log.warning("%s", warning)
    page = Page(source.uri, source.location.run, counts, problems, warnings, changes, findings)
    if problems:
        _stop(source, problems, page)
    images = {split: counts[split].total() for split in SPLITS}
    log.info("The data set is sound: %s", ", ".join(f"{split} {n}" for split, n in images.items()))
    return {
        "uri": source.uri,
        "bucket": source.bucket,
        "prefix": source.prefix,
        "classes": sorted(counts["train"]),
        "images": images,
        "counts": {split: dict(sorted(counts[split].items())) for split in SPLITS},
        "digest": manifest.digest(listing.pictures),
        "manifest": source.manifest,
        "warnings": warnings,
        "changes": changes,
        "report": source.report,
        "report_url": _write_page(source, page),
    }


def _looked_at(source: _Source, listing: Listing) -> list[Seen]:
    """Read what is not known from the manifest; both manifests are written whatever happens meanwhile."""
    cached = manifest.load(source.s3, source.cache) or []
    known: dict[Version, Look] = {picture.version: look for picture, look in cached}
    looks = dict(known)
    try:
        looks.update(read_new(source.s3, source.bucket, source.prefix, listing.pictures, known))
    finally:
        content = manifest.encode(listing.pictures, looks)
        for uri in (source.manifest, source.cache):
            write(source.s3, uri, content, "application/gzip")
    return [(picture, looks[picture.version]) for picture in listing.pictures]


def _changes(s3: S3Client, seen: Sequence[Seen], last: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if last is None:
        return None
    uri = last["dataset"]["manifest"]
    before = manifest.load(s3, uri)
    if before is None:
        log.warning("Changes since %s are unknown, because %s cannot be read", last["run"], uri)
        return None
    changes = changes_since(last["run"], before, seen)
    log.info(
        "Since %s: %d added, %d removed, %d changed",
        *(changes[key] for key in ("since", "added", "removed", "changed")),
    )
    return changes


def _check_bucket(s3: S3Client, bucket: str) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            raise DatasetError(
                f"The bucket {bucket} does not exist. Create it and upload the data set, or name another "
                "bucket in the form or in the pipeline file."
            ) from error
        if status == 403:
            raise DatasetError(
                f"The connection's credentials may not read the bucket {bucket}. Grant s3:ListBucket and "
                "s3:GetObject."
            ) from error
        raise


def _write_page(source: _Source, page: Page) -> str:
    """Put the page into S3 and log the link to it."""
    write_page(source.s3, source.report, source.bucket, source.prefix, page)
    url = link(source.s3, source.report)
    log.info("Page about the data set: %s", url)
    return url


def _stop(source: _Source, problems: Sequence[Problem], page: Page) -> None:
    """Log all offenders, write the page, and raise DatasetError with the first offenders."""
    for problem in problems:
        log.error("%s", problem.summary)
        for offender in problem.offenders:
            log.error("  %s", offender)
    _write_page(source, page)
    lines = [f"The data set {source.uri} cannot be used:"]
    room = _LISTED
    for problem in problems:
        lines.append(f"- {problem.summary}:")
        lines += [f"    {offender}" for offender in problem.offenders[:room]]
        if len(problem.offenders) > room:
            lines.append(f"    ... and {len(problem.offenders) - room} more, see the log")
        room = max(0, room - len(problem.offenders))
    raise DatasetError("\n".join([*lines, f"Its page with pictures: {source.report}"]))
