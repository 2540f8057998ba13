"""What a pipeline's last successful run leaves to the next one: one record in S3.

It holds the fingerprint that shows whether anything changed, the dataset's manifest, the tuning job that the
next search may start from, the best hyperparameters and the costs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

from retraining.aws.clients import Aws
from retraining.aws.s3 import read_json, write_json
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_stamp
from retraining.runs.results import (
    ActualCost,
    DatasetFacts,
    Fingerprint,
    LastRun,
    RunFacts,
    RunResults,
    Search,
    TuningResult,
)

log = logging.getLogger(__name__)

FORMAT_VERSION = 1

# Keys that change neither the model nor how it is served, so that changing one is no reason to run again.
_IRRELEVANT_KEYS: Mapping[str, Any] = {
    "description": True,
    "schedule": True,
    "owner": True,
    "notifications": True,
    "retire": True,
    "max_cost_usd": True,
    "prices": True,
    "job": {"spot", "max_spot_wait_seconds", "keep_running_on_kill"},
}
_IRRELEVANT_FIELDS = frozenset({"force", "max_cost_usd", "spot"})


def last_run(aws: Aws, location: RunLocation) -> LastRun | None:
    """The record of the last run, or None where there is none that this version reads.

    If this run wrote the record (a re-run), return the one before it.
    """
    record = _newest(aws, location)
    return record["before"] if record and record["run"] == location.run else record


def _newest(aws: Aws, location: RunLocation) -> LastRun | None:
    uri = _uri(location)
    try:
        document = read_json(aws.s3, uri)
    except ValueError:
        log.warning("%s is not readable; this run starts like a first one", uri)
        return None
    if document is not None and document.get("format_version") != FORMAT_VERSION:
        log.warning("%s has another format; this run starts like a first one", uri)
        return None
    return cast("LastRun | None", document)


def remember(aws: Aws, location: RunLocation, results: RunResults, costs: ActualCost) -> LastRun:
    """Write what the next run needs to know of this one. A run that did not tune passes the last search on.

    A re-run that ends after a later run has ended leaves the later run's record in place.
    """
    run, before = results["plan"]["run"], last_run(aws, location)
    tuning, approval = results.get("tuning"), results["approval"]
    record: LastRun = {
        "format_version": FORMAT_VERSION,
        "run": run["name"],
        "run_id": run["run_id"],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": run["fingerprint"],
        "dataset": run["dataset"],
        "search": _search(run, tuning) if tuning else before["search"] if before else None,
        "live": approval["approved"] or (before is not None and before["live"]),
        "outcome": approval["sentence"],
        "costs": costs,
        "before": {**before, "before": None} if before else None,
    }
    if before and run_stamp(before["run"]) > run_stamp(location.run):
        log.warning("The later run %s has left its record already, which stays", before["run"])
        return record
    log.info("The next run compares itself with this one: %s", write_json(aws.s3, _uri(location), record))
    return record


def fingerprint(
    pipeline: Pipeline, settings: RunSettings, dataset: DatasetFacts, *, code: str, weights: str | None
) -> Fingerprint:
    """Digests of what decides a run's result.

    `code` is the digest of the source archive; `weights` URI and ETag of the weights.
    """
    from_file = pipeline.model_dump(mode="json", exclude=_IRRELEVANT_KEYS)
    from_form = {k: v for k, v in asdict(settings).items() if k not in _IRRELEVANT_FIELDS}
    return {
        "data": dataset["digest"][:16],
        "code": code,
        "weights": _digest(weights),
        "configuration": _digest([from_file, from_form]),
    }


def changes(current: Fingerprint, last: LastRun | None) -> list[str]:
    """Which parts of the fingerprint differ from the last run's; all of them where there was none."""
    earlier: Mapping[str, object] = last["fingerprint"] if last else {}
    return [part for part, digest in current.items() if earlier.get(part) != digest]


def _search(run: RunFacts, tuning: TuningResult) -> Search:
    return {
        "job": tuning["job"],
        "run": run["name"],
        "model": run["model"],
        "data": run["fingerprint"]["data"],
        "code": run["fingerprint"]["code"],
        "weights": run["fingerprint"]["weights"],
        "objective": tuning["best"]["objective"],
        "hyperparameters": tuning["best"]["hyperparameters"],
    }


def _uri(location: RunLocation) -> str:
    return location.shared_uri("last_run.json")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
