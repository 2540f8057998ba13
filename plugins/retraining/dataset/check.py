"""The check of the dataset in S3, before the run pays for anything.

A manifest in S3, shared by the pipeline's runs, keeps what is known of every content by ETag and size. A
check reads only new files, so it takes minutes the first time and seconds a week later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from retraining.aws.clients import Aws
from retraining.aws.responses import is_missing
from retraining.aws.s3 import link, write
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Dataset
from retraining.dataset import manifest
from retraining.dataset.duplicates import find_duplicates
from retraining.dataset.findings import Findings, Problem, findings_of, problems_of, warnings_of
from retraining.dataset.images import ImageFacts, InspectedImage, inspect_new
from retraining.dataset.layouts import advice
from retraining.dataset.listing import (
    SPLITS,
    Listing,
    Version,
    counts_of,
    dataset_location,
    list_images,
    structure_problems,
)
from retraining.dataset.page import Page, write_page
from retraining.errors import DatasetError
from retraining.runs.context import RunLocation
from retraining.runs.results import DatasetChanges, DatasetResult, LastRun

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

LEFT_OUT = "dataset/left_out.txt"
_LISTED = 20  # offending files named in the error; the log names all


@dataclass(frozen=True)
class _Source:
    """Where the dataset is, and where this run writes about it."""

    s3: S3Client
    bucket: str
    prefix: str
    location: RunLocation

    @property
    def uri(self) -> str:
        """URI without a slash at its end, also where the dataset is a whole bucket."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def manifest(self) -> str:
        """URI of the run's own manifest, with which later runs compare."""
        return f"{self.location.output}/{manifest.FILE}"

    @property
    def cache(self) -> str:
        """URI of the manifest that the pipeline's runs share."""
        return self.location.shared_uri(manifest.FILE)

    @property
    def report(self) -> str:
        return self.location.dataset_report


def check_dataset(
    pipeline: Pipeline, settings: RunSettings, aws: Aws, location: RunLocation, last: LastRun | None
) -> DatasetResult:
    """Check the whole dataset, compare it with the last run's, and put a page about it into S3.

    Raises DatasetError, which lists what is wrong and how to fix it. Page and manifest are written in that
    case, too, if there are any images.
    """
    bucket, prefix = dataset_location(settings.dataset_prefix, settings.bucket, aws)
    for one in dict.fromkeys((bucket, location.bucket)):
        _check_bucket(aws.s3, one)
    source = _Source(aws.s3, bucket, prefix, location)
    listing = list_images(aws.s3, bucket, prefix)
    counts = listing.counts()
    seen = advice(listing.paths) if not all(counts.values()) else None
    if not listing.images:
        raise DatasetError(
            f"There are no images under {source.uri}/. "
            + (
                seen
                or "Upload the dataset there as train/<class>/<file>, valid/..., test/..., or name another "
                "location in the form or in the pipeline file."
            )
        )
    structure = tuple(structure_problems(listing, counts, pipeline.dataset))
    if structure:
        problem = Problem("Incomplete splits and classes", (*([seen] if seen else ()), *structure))
        _stop(source, [problem], Page(source.uri, location.run, counts, problems=[problem]))
    log.info("%s has %d images of %d classes", source.uri, len(listing.images), len(counts["train"]))
    return _check_images(source, listing, counts, pipeline.dataset, last)


def _check_images(
    source: _Source,
    listing: Listing,
    counts: dict[str, Counter[str]],
    limits: Dataset,
    last: LastRun | None,
) -> DatasetResult:
    """Check the images of a dataset whose structure is complete."""
    inspected = _inspected(source, listing)
    readable = [(image, facts) for image, facts in inspected if not facts.problem]
    findings = findings_of(inspected, find_duplicates(readable))
    counts = counts_of(image for image, _ in readable)
    incomplete = tuple(structure_problems(listing, counts, limits))
    problems = problems_of(findings, counts, limits)
    if incomplete and not problems:
        problems = [Problem("Incomplete without the files that cannot be read", incomplete)]
    warnings = warnings_of(findings, counts, listing, limits)
    changes = _changes(source.s3, inspected, last)
    for warning in warnings:
        log.warning("%s", warning)
    page = Page(source.uri, source.location.run, counts, problems, warnings, changes, findings)
    if problems:
        _stop(source, problems, page)
    images = {split: counts[split].total() for split in SPLITS}
    log.info("The dataset is valid: %s", ", ".join(f"{split} {n}" for split, n in images.items()))
    return {
        "uri": source.uri,
        "bucket": source.bucket,
        "prefix": source.prefix,
        "classes": sorted(counts["train"]),
        "images": images,
        "counts": {split: dict(sorted(counts[split].items())) for split in SPLITS},
        "digest": manifest.digest(listing.images),
        "manifest": source.manifest,
        "warnings": warnings,
        "left_out": _write_left_out(source, findings),
        "changes": changes,
        "report": source.report,
        "report_url": _write_page(source, page),
    }


def _write_left_out(source: _Source, findings: Findings) -> str | None:
    """List the damaged images, a path a line, for the scripts of training and evaluation; the list's URI."""
    if not findings.damaged:
        return None
    uri = f"{source.location.output}/{LEFT_OUT}"
    for image, problem in findings.damaged:
        log.warning("left out: %s, which %s", image.path, problem)
    write(source.s3, uri, "".join(f"{image.path}\n" for image, _ in findings.damaged).encode(), "text/plain")
    return uri


def _inspected(source: _Source, listing: Listing) -> list[InspectedImage]:
    """Read what the shared manifest lacks. Both manifests are written even if reading fails half-way."""
    cached = manifest.load(source.s3, source.cache) or []
    known: dict[Version, ImageFacts] = {image.version: facts for image, facts in cached}
    found = dict(known)
    try:
        found.update(inspect_new(source.s3, source.bucket, source.prefix, listing.images, known))
    finally:
        content = manifest.encode(listing.images, found)
        for uri in (source.manifest, source.cache):
            write(source.s3, uri, content, "application/gzip")
    return [(image, found[image.version]) for image in listing.images]


def _changes(
    s3: S3Client, inspected: Sequence[InspectedImage], last: LastRun | None
) -> DatasetChanges | None:
    if last is None:
        return None
    uri = last["dataset"]["manifest"]
    before = manifest.load(s3, uri)
    if before is None:
        log.warning("Changes since %s are unknown, because %s cannot be read", last["run"], uri)
        return None
    changes = manifest.changes_since(last["run"], before, inspected)
    counts = (changes["added"], changes["removed"], changes["changed"])
    log.info("Since %s: %d added, %d removed, %d changed", changes["since"], *counts)
    return changes


def _check_bucket(s3: S3Client, bucket: str) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if is_missing(error):
            raise DatasetError(
                f"The bucket {bucket} does not exist. Create it and upload the dataset, or name another "
                "bucket in the form or in the pipeline file."
            ) from error
        if error.response["Error"]["Code"] == "403":
            raise DatasetError(
                f"The connection's credentials may not read the bucket {bucket}. Grant s3:ListBucket and "
                "s3:GetObject."
            ) from error
        raise


def _write_page(source: _Source, page: Page) -> str:
    """Put the page into S3 and log the link to it."""
    write_page(source.s3, source.report, source.bucket, source.prefix, page)
    url = link(source.s3, source.report)
    log.info("Dataset report: %s", url)
    return url


def _stop(source: _Source, problems: Sequence[Problem], page: Page) -> NoReturn:
    """Log all offending files, write the page, and raise DatasetError with the first of them."""
    for problem in problems:
        log.error("%s", problem.summary)
        for offender in problem.offenders:
            log.error("  %s", offender)
    _write_page(source, page)
    lines = [f"The dataset {source.uri} cannot be used:"]
    room = _LISTED
    for problem in problems:
        lines.append(f"- {problem.summary}:")
        lines += [f"    {offender}" for offender in problem.offenders[:room]]
        if len(problem.offenders) > room:
            lines.append(f"    ... and {len(problem.offenders) - room} more, see the log")
        room = max(0, room - len(problem.offenders))
    raise DatasetError("\n".join([*lines, f"Report with thumbnails: {source.report}"]))
