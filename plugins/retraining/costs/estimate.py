"""What a run may cost by its limits, and what it is expected to cost."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from rich.table import Table

from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.costs.prices import HOUR, MONTH_HOURS, PriceTable, total, volume_usd
from retraining.errors import PlanError
from retraining.formatting import duration, money, rendered
from retraining.runs.results import ActualCost, CostEstimate, EstimatedJob

log = logging.getLogger(__name__)

TUNING, TRAINING, EVALUATION = "tuning", "training", "evaluation"


@dataclass(frozen=True)
class _Job:
    """One kind of job in a run. `limit` is in seconds, for all of its `count` jobs together."""

    kind: str
    instance_type: str
    volume_gb: int
    limit: int
    count: int = 1
    spot: bool = False


def estimate(
    pipeline: Pipeline, settings: RunSettings, region: str, last_costs: ActualCost | None = None
) -> CostEstimate:
    """The most that a run may cost by its limits, and its cost if jobs take as long as in the last run.

    The upper bound counts one attempt at every job, without a discount for spot capacity.
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
        "max_usd": total(job["max_usd"] for job in jobs),
        "expected_usd": total(job["expected_usd"] for job in jobs),
        "unknown": sorted({name for name in types if name not in table.instances}),
        "endpoint": {
            "instance_type": settings.endpoint_instance_type,
            "count": count,
            "usd_per_hour": hourly,
            "usd_per_month": None if hourly is None else hourly * count * MONTH_HOURS,
        },
        "storage_gb_month": table.storage_gb_month,
    }


def check_budget(costs: CostEstimate, max_cost_usd: float | None) -> None:
    """Compare the estimate with the most that the run may cost; None is no limit.

    Raises PlanError if the upper bound exceeds the limit or is unknown; the log then has the estimate.
    """
    if max_cost_usd is None:
        return
    missing = [job["instance_type"] for job in costs["jobs"] if job["max_usd"] is None]
    if costs["max_usd"] is None:
        raise PlanError(
            f"max_cost_usd is {max_cost_usd:.2f}, but {', '.join(dict.fromkeys(missing))} has no known price "
            f"in {costs['region']}. Add it to the pipeline file, in USD per hour, as "
            f"`prices: {{{missing[0]}: ...}}`, or remove the limit."
        )
    if costs["max_usd"] <= max_cost_usd:
        return
    log_estimate(costs)
    parts = ", ".join(f"{job['kind']} {money(job['max_usd'])}" for job in costs["jobs"])
    raise PlanError(
        f"By its limits the run may cost {money(costs['max_usd'])} ({parts}), which is more than "
        f"max_cost_usd {money(max_cost_usd)}.{_expectation(costs)} {_advice(costs)}"
    )


def log_estimate(costs: CostEstimate) -> None:
    """Log the estimate as a table."""
    for line in estimate_table(costs).splitlines():
        log.info("%s", line)


def estimate_table(costs: CostEstimate) -> str:
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
        f"month of {MONTH_HOURS} hours.\nPrices of {costs['prices']['read_on']} for {costs['region']}, with "
        "volumes, without S3.\nFurther attempts at failed jobs would add to them."
    )


def _jobs(pipeline: Pipeline, settings: RunSettings) -> list[_Job]:
    job, evaluation = pipeline.job, pipeline.evaluation
    longest, trials = job.max_runtime_seconds, settings.max_jobs
    instance, volume, spot = settings.instance_type, job.volume_size_gb, settings.spot
    search_limit = min(trials * longest, settings.max_parallel_jobs * pipeline.tuning.max_runtime_seconds)
    search = _Job(TUNING, instance, volume, search_limit, trials, spot)
    training = _Job(TRAINING, instance, volume, longest, spot=spot)
    judging = _Job(
        EVALUATION, evaluation.instance_type, evaluation.volume_size_gb, evaluation.max_runtime_seconds
    )
    return [training, judging] if settings.skip_tuning else [search, training, judging]


def _estimated(job: _Job, table: PriceTable, last_costs: ActualCost | None) -> EstimatedJob:
    hourly = table.instances.get(job.instance_type)
    expected = _expected_seconds(job, table, last_costs)

    def price(seconds: float | None) -> float | None:
        if hourly is None or seconds is None:
            return None
        return hourly * seconds / HOUR + volume_usd(job.volume_gb, seconds, table.storage_gb_month)

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


def _expected_seconds(job: _Job, table: PriceTable, last_costs: ActualCost | None) -> float | None:
    """Billable seconds if every job takes as long as the mean of the last run's on the same instance type.

    Attempts that did not complete are ignored; trials that were stopped early count.
    """
    rows = [
        row
        for row in (last_costs["jobs"] if last_costs else [])
        if row["kind"] == job.kind
        and row["instance_type"] == job.instance_type
        and row["billable_seconds"]
        and (job.kind == TUNING or row["status"] == "Completed")
    ]
    if not rows:
        return None
    was_spot = any(row["spot_saving"] is not None for row in rows)
    full_time = was_spot and not job.spot
    mean = sum(row["seconds" if full_time else "billable_seconds"] or 0 for row in rows) / len(rows)
    discount = table.spot_discount if job.spot and not was_spot else 0.0
    return min(mean * job.count * (1 - discount), float(job.limit))


def _expectation(costs: CostEstimate) -> str:
    if costs["expected_usd"] is None:
        return ""
    return f" If its jobs take as long as the last run's, it will cost {money(costs['expected_usd'])}."


def _advice(costs: CostEstimate) -> str:
    largest = max(costs["jobs"], key=lambda job: job["max_usd"] or 0)
    lower = {
        TUNING: "max_jobs, job.max_runtime_seconds or tuning.max_runtime_seconds",
        TRAINING: "job.max_runtime_seconds",
        EVALUATION: "evaluation.max_runtime_seconds",
    }[largest["kind"]]
    return f"Lower {lower}, choose a cheaper instance than {largest['instance_type']}, or raise the limit."
