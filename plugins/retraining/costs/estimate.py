"""What a run may cost, what it will probably cost, and what it did cost, by job.

Money is in USD and rounded where it is shown, seconds are those of one instance: two instances for a minute
are 120. Costs are those of instances and their volumes; SageMaker does not charge for Debugger's built-in
rules, and S3 is left out. Prices are in `prices.yaml` beside this file, with their sources.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml
from rich.table import Table

from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.errors import PlanError
from retraining.formatting import rendered

log = logging.getLogger(__name__)

Document = dict[str, Any]

TUNING, TRAINING, EVALUATION = "tuning", "training", "evaluation"
PRICES = Path(__file__).with_name("prices.yaml")

_HOUR = 3600
_MONTH_HOURS = 730  # as AWS's own calculator counts a month


@dataclass(frozen=True)
class PriceTable:
    """Prices of one region, USD an hour by instance type."""

    read_on: date
    source: str
    instances: Mapping[str, float]
    storage_gb_month: float
    spot_discount: float

    @classmethod
    def of(cls, region: str, corrections: Mapping[str, float]) -> Self:
        """A region's table with a pipeline file's own prices in it; an unknown region has only those."""
        content = _price_file()
        known = content["regions"].get(region, {})
        return cls(
            read_on=content["read_on"],
            source=content["source"],
            instances={**known.get("instances", {}), **corrections},
            storage_gb_month=known.get("storage_gb_month", 0.0),
            spot_discount=content["spot"]["discount"],
        )

    def storage(self, gigabytes: float, seconds: float) -> float:
        """Price of a job's volume."""
        return gigabytes * self.storage_gb_month * seconds / (_MONTH_HOURS * _HOUR)


@dataclass(frozen=True)
class _Job:
    """One kind of job in a run, by its limits."""

    kind: str
    instance_type: str
    volume_gb: int
    limit: int
    """Seconds of all its jobs together, at most."""
    count: int = 1
    spot: bool = False


def estimate(
    pipeline: Pipeline, settings: RunSettings, region: str, last_costs: Mapping[str, Any] | None = None
) -> Document:
    """The most that a run may cost by its limits, and its cost if the jobs take as long as last time.

    `last_costs` is what `actual` returned for the last run. Returns::

        region, prices   {read_on, source}
        jobs             [{kind, instance_type, usd_per_hour, spot, jobs, volume_gb, max_seconds, max_usd,
                         expected_seconds, expected_usd}]; money is None where the price is unknown, what is
                         expected is None where the last run had no such job on such an instance
        max_usd, expected_usd   sums, None unless all their parts are known
        unknown          instance types without a price
        endpoint         {instance_type, count, usd_per_hour, usd_per_month}: runs on after the run, and is in
                         no sum
        storage_gb_month

    The upper bound counts one attempt of every job, without a discount for spot capacity.
    """
    table = PriceTable.of(region, pipeline.prices)
    jobs = [_estimated(job, table, last_costs) for job in _jobs(pipeline, settings)]
    hourly = table.instances.get(settings.endpoint_instance_type)
    count = settings.endpoint_instance_count
    types = [job["instance_type"] for job in jobs] + [settings.endpoint_instance_type]
    return {
        "region": region,
        "prices": {"read_on": table.read_on.isoformat(), "source": table.source},
        "jobs": jobs,
        "max_usd": _sum(job["max_usd"] for job in jobs),
        "expected_usd": _sum(job["expected_usd"] for job in jobs),
        "unknown": sorted({name for name in types if name not in table.instances}),
        "endpoint": {
            "instance_type": settings.endpoint_instance_type,
            "count": count,
            "usd_per_hour": hourly,
            "usd_per_month": None if hourly is None else hourly * count * _MONTH_HOURS,
        },
        "storage_gb_month": table.storage_gb_month,
    }


def check_budget(costs: Mapping[str, Any], max_cost_usd: float | None) -> None:
    """Compare an estimate with the most that a run may cost; None is no limit.

    Raises PlanError where the upper bound is above the limit or, with a limit, unknown.
    """
    for line in estimate_table(costs).splitlines():
        log.info("%s", line)
    if max_cost_usd is None:
        return
    missing = [job["instance_type"] for job in costs["jobs"] if job["max_usd"] is None]
    if missing:
        raise PlanError(
            f"max_cost_usd is {max_cost_usd:.2f}, but {_listed(missing)} has no known price in "
            f"{costs['region']}. Put it into the pipeline file, in USD an hour, as "
            f"`prices: {{{missing[0]}: ...}}`, or take the limit away."
        )
    if costs["max_usd"] <= max_cost_usd:
        return
    parts = ", ".join(f"{job['kind']} {money(job['max_usd'])}" for job in costs["jobs"])
    raise PlanError(
        f"By its limits the run may cost {money(costs['max_usd'])} ({parts}), which is more than "
        f"max_cost_usd {money(max_cost_usd)}.{_expectation(costs)} {_advice(costs)}"
    )


def actual(
    costs: Mapping[str, Any] | None,
    attempts: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    trials_billable: Mapping[str, float] | None = None,
) -> Document:
    """What the jobs of a run cost. `costs` is its estimate, which holds the prices.

    `attempts` are the tasks' results by kind, or what is known of jobs whose tasks have none; a kind may be
    missing. `trials_billable` has BillableTimeInSeconds of trials by name, which differs from their duration
    on spot capacity. Returns::

        jobs           [{kind, job, status, instance_type, seconds, billable_seconds, usd, spot_saving}]:
                       usd None where seconds or price are unknown; spot_saving is the share of the time
                       that was not billed, None without spot capacity
        by_kind        {kind: {jobs, billable_seconds, usd}}
        billable_seconds, usd   sums of what is known
        complete       whether usd is known of every job
    """
    planned = {job["kind"]: job for job in costs["jobs"]} if costs else {}
    storage = costs["storage_gb_month"] if costs else 0.0
    billable = trials_billable or {}
    rows = [
        _spent(TUNING, trial["name"], trial["status"], trial["seconds"], billable.get(trial["name"]))
        for search in attempts.get(TUNING, ())
        for trial in search.get("trials", [])
    ]
    rows += [
        _spent(TRAINING, job["job"], job["status"], _training_seconds(job), job["billable_seconds"])
        for job in attempts.get(TRAINING, ())
    ]
    rows += [
        _spent(EVALUATION, job["job"], job["status"], job["seconds"], None)
        for job in attempts.get(EVALUATION, ())
        if job.get("job")
    ]
    rows = [_priced(row, planned.get(row["kind"]), storage) for row in rows]
    return {
        "jobs": rows,
        "by_kind": {
            kind: _total([row for row in rows if row["kind"] == kind])
            for kind in dict.fromkeys(row["kind"] for row in rows)
        },
        "billable_seconds": sum(row["billable_seconds"] or 0 for row in rows),
        "usd": sum(row["usd"] or 0 for row in rows),
        "complete": all(row["usd"] is not None for row in rows),
    }


def estimate_table(costs: Mapping[str, Any]) -> str:
    """An estimate for the task log."""
    grid = Table("job", "instance", "USD/h", "at most", "may cost", "expected", "will cost")
    for job in costs["jobs"]:
        kind = job["kind"] if job["jobs"] == 1 else f"{job['kind']} ({job['jobs']} jobs)"
        grid.add_row(
            kind,
            job["instance_type"] + (" spot" if job["spot"] else ""),
            "?" if job["usd_per_hour"] is None else f"{job['usd_per_hour']:.4g}",
            duration(job["max_seconds"]),
            money(job["max_usd"]),
            duration(job["expected_seconds"]),
            money(job["expected_usd"]),
        )
    grid.add_row("the run", "", "", "", money(costs["max_usd"]), "", money(costs["expected_usd"]))
    endpoint = costs["endpoint"]
    month = money(endpoint["usd_per_month"])
    return rendered(grid) + (
        f"Not part of the run: the endpoint, {endpoint['count']} x {endpoint['instance_type']}, {month} a "
        f"month of {_MONTH_HOURS} hours. Prices of {costs['prices']['read_on']} for {costs['region']}, "
        "volumes included, S3 not; retries of failed jobs would come on top."
    )


def actual_table(costs: Mapping[str, Any]) -> str:
    """What a run cost, for the task log."""
    grid = Table("job", "name", "status", "instance", "billed", "cost", "saved by spot")
    for row in costs["jobs"]:
        saving = "" if row["spot_saving"] is None else f"{row['spot_saving']:.0%}"
        instance = row["instance_type"] or "?"
        billed = duration(row["billable_seconds"])
        grid.add_row(row["kind"], row["job"], row["status"], instance, billed, money(row["usd"]), saving)
    total = money(costs["usd"]) + ("" if costs["complete"] else " at least")
    grid.add_row("the run", "", "", "", duration(costs["billable_seconds"]), total, "")
    return rendered(grid)


def money(value: float | None) -> str:
    """An amount with as many digits as it takes to tell it from nothing."""
    if value is None:
        return "?"
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would choose."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


@cache
def _price_file() -> Document:
    content: Document = yaml.safe_load(PRICES.read_text(encoding="utf-8"))
    return content


def _jobs(pipeline: Pipeline, settings: RunSettings) -> list[_Job]:
    tuning, job, evaluation = pipeline.tuning, pipeline.job, pipeline.evaluation
    training = _Job(
        TRAINING, settings.instance_type, job.volume_size_gb, job.max_runtime_seconds, spot=settings.spot
    )
    judging = _Job(
        EVALUATION, evaluation.instance_type, evaluation.volume_size_gb, evaluation.max_runtime_seconds
    )
    if settings.skip_tuning:
        return [training, judging]
    limit = min(
        settings.max_jobs * job.max_runtime_seconds, settings.max_parallel_jobs * tuning.max_runtime_seconds
    )
    search = _Job(
        TUNING, settings.instance_type, job.volume_size_gb, limit, settings.max_jobs, spot=settings.spot
    )
    return [search, training, judging]


def _estimated(job: _Job, table: PriceTable, last_costs: Mapping[str, Any] | None) -> Document:
    hourly = table.instances.get(job.instance_type)
    expected = _expected_seconds(job, table, last_costs)

    def price(seconds: float | None) -> float | None:
        if hourly is None or seconds is None:
            return None
        return hourly * seconds / _HOUR + table.storage(job.volume_gb, seconds)

    return {
        "kind": job.kind,
        "instance_type": job.instance_type,
        "usd_per_hour": hourly,
        "spot": job.spot,
        "jobs": job.count,
        "volume_gb": job.volume_gb,
        "max_seconds": job.limit,
        "max_usd": price(job.limit),
        "expected_seconds": expected,
        "expected_usd": price(expected),
    }


def _expected_seconds(job: _Job, table: PriceTable, last_costs: Mapping[str, Any] | None) -> float | None:
    """Billable seconds of `job.count` jobs like the last run's, which were on the same kind of instance.

    Attempts that did not complete say nothing; of a search, trials that were stopped early do.
    """
    rows = [
        row
        for row in (last_costs or {}).get("jobs", [])
        if row["kind"] == job.kind
        and row["instance_type"] == job.instance_type
        and row["billable_seconds"]
        and (job.kind == TUNING or row["status"] == "Completed")
    ]
    if not rows:
        return None
    was_spot = any(row["spot_saving"] is not None for row in rows)
    seconds = [row["seconds"] if was_spot and not job.spot else row["billable_seconds"] for row in rows]
    mean = sum(seconds) / len(rows)
    discount = table.spot_discount if job.spot and not was_spot else 0.0
    return min(float(mean) * job.count * (1 - discount), float(job.limit))


def _spent(kind: str, job: str, status: str, seconds: float | None, billable: float | None) -> Document:
    return {
        "kind": kind,
        "job": job,
        "status": status,
        "seconds": seconds,
        "billable_seconds": seconds if billable is None else billable,
    }


def _priced(row: Document, planned: Mapping[str, Any] | None, storage_gb_month: float) -> Document:
    seconds, billable = row["seconds"], row["billable_seconds"]
    hourly = planned["usd_per_hour"] if planned else None
    usd = saving = None
    if planned and hourly is not None and billable is not None:
        volume = planned["volume_gb"] * storage_gb_month * (seconds or billable) / (_MONTH_HOURS * _HOUR)
        usd = hourly * billable / _HOUR + volume
    if planned and planned["spot"] and seconds and billable is not None:
        saving = max(0.0, 1 - billable / seconds)
    return {
        **row,
        "instance_type": planned["instance_type"] if planned else None,
        "usd": usd,
        "spot_saving": saving,
    }


def _training_seconds(training: Mapping[str, Any]) -> float | None:
    """TrainingTimeInSeconds, of which spot savings are a share; where it is missing, the duration."""
    seconds: float | None = training.get("Training", {}).get("TrainingTimeInSeconds", training["seconds"])
    return seconds


def _total(rows: list[Document]) -> Document:
    return {
        "jobs": len(rows),
        "billable_seconds": sum(row["billable_seconds"] or 0 for row in rows),
        "usd": _sum(row["usd"] for row in rows),
    }


def _sum(values: Any) -> float | None:
    known = list(values)
    return None if None in known else float(sum(known))


def _expectation(costs: Mapping[str, Any]) -> str:
    if costs["expected_usd"] is None:
        return ""
    return f" If its jobs take as long as the last run's, it will cost {money(costs['expected_usd'])}."


def _advice(costs: Mapping[str, Any]) -> str:
    largest = max(costs["jobs"], key=lambda job: job["max_usd"])
    lower = {
        TUNING: "max_jobs, job.max_runtime_seconds or tuning.max_runtime_seconds",
        TRAINING: "job.max_runtime_seconds",
        EVALUATION: "evaluation.max_runtime_seconds",
    }[largest["kind"]]
    return f"Lower {lower}, choose a cheaper instance than {largest['instance_type']}, or raise the limit."


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))
