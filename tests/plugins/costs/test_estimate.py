"""The cost of a run: its upper bound, what is expected, the budget, and what the jobs cost in the end."""

from __future__ import annotations

import json
from datetime import date

import pytest
import yaml
from retraining.config.pipeline import Pipeline
from retraining.costs.billing import BilledJob, cost_of, cost_table
from retraining.costs.estimate import check_budget, estimate, estimate_table
from retraining.costs.prices import PRICES, PriceTable
from retraining.errors import PlanError
from retraining.formatting import money
from retraining.runs.results import CostEstimate, EstimatedJob

from tests.plugins.conftest import MakeSettings

REGION = "us-east-1"
HOUR = 3600
M5_XLARGE = 0.23 + 30 * 0.14 / 730  # an hour of the instance with its volume of 30 GB


def of(costs: CostEstimate, kind: str) -> EstimatedJob:
    return next(job for job in costs["jobs"] if job["kind"] == kind)


def trial(name: str, seconds: float | None, status: str = "Completed") -> BilledJob:
    return BilledJob("tuning", name, status, seconds)


def training(seconds: float, billable: float, status: str = "Completed") -> BilledJob:
    return BilledJob("training", "train", status, seconds, billable)


EVALUATION = BilledJob("evaluation", "evaluate", "Completed", 120.0)


def test_the_table_says_where_and_when_it_was_read() -> None:
    content = yaml.safe_load(PRICES.read_text())
    assert isinstance(content["read_on"], date)
    assert content["source"]
    assert 0 < content["spot"]["discount"] < 1
    for region in content["regions"].values():
        assert region["storage_gb_month"] > 0
        assert all(name.startswith("ml.") and price > 0 for name, price in region["instances"].items())
    virginia, oregon = (content["regions"][name]["instances"] for name in ("us-east-1", "us-west-2"))
    assert all(price == pytest.approx(virginia[name], rel=0.005) for name, price in oregon.items())


def test_every_instance_of_the_pipeline_has_a_price(pipeline: Pipeline) -> None:
    table = PriceTable.of(REGION, pipeline.prices)
    for name in (
        pipeline.job.instance_type,
        pipeline.evaluation.instance_type,
        pipeline.endpoint.instance_type,
    ):
        assert name in table.instances


@pytest.mark.parametrize(
    ("max_jobs", "parallel", "hours"), [(4, 2, 16), (100, 2, 24), (6, 6, 24), (2, 1, 8), (1, 1, 4)]
)
def test_the_upper_bound_of_tuning_is_its_tighter_limit(
    pipeline: Pipeline, make_settings: MakeSettings, max_jobs: int, parallel: int, hours: int
) -> None:
    """Trials of at most 4 h each, a search of at most 12 h on each of its parallel jobs."""
    costs = estimate(pipeline, make_settings(max_jobs=max_jobs, max_parallel_jobs=parallel), REGION)
    assert of(costs, "tuning")["max_seconds"] == hours * HOUR
    assert of(costs, "tuning")["max_usd"] == pytest.approx(hours * M5_XLARGE)
    assert costs["max_usd"] == pytest.approx((hours + 4 + 1) * M5_XLARGE)
    assert costs["expected_usd"] is None


def test_the_endpoint_is_not_part_of_the_run(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    with_two = estimate(pipeline, make_settings(endpoint_instance_count=2), REGION)
    assert with_two["endpoint"]["usd_per_month"] == pytest.approx(0.115 * 2 * 730)
    assert with_two["max_usd"] == estimate(pipeline, make_settings(), REGION)["max_usd"]
    assert "$167.90 a month" in estimate_table(with_two)


def test_a_run_that_skips_tuning_does_not_pay_for_it(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    costs = estimate(pipeline, make_settings(skip_tuning=True), REGION)
    assert [job["kind"] for job in costs["jobs"]] == ["training", "evaluation"]


def test_what_is_expected_follows_the_last_run(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    first = estimate(pipeline, make_settings(), REGION)
    trials = [trial("a", 300), trial("b", 500), trial("c", None, "Stopped")]
    last = cost_of([*trials, training(10, 10, "Failed"), training(1000, 1000), EVALUATION], first)
    costs = estimate(pipeline, make_settings(max_jobs=8), REGION, json.loads(json.dumps(last)))
    assert of(costs, "tuning")["expected_seconds"] == 8 * 400
    assert of(costs, "training")["expected_seconds"] == 1000
    assert costs["expected_usd"] == pytest.approx((8 * 400 + 1000 + 120) / HOUR * M5_XLARGE)
    spot = estimate(pipeline, make_settings(spot=True), REGION, last)
    assert of(spot, "training")["expected_seconds"] == 500
    assert of(spot, "evaluation")["expected_seconds"] == 120
    assert spot["max_usd"] == estimate(pipeline, make_settings(), REGION)["max_usd"]
    other = estimate(pipeline, make_settings(instance_type="ml.g4dn.xlarge"), REGION, last)
    assert of(other, "training")["expected_seconds"] is None


def test_spot_time_is_not_mistaken_for_time_on_demand(
    pipeline: Pipeline, make_settings: MakeSettings
) -> None:
    spot = estimate(pipeline, make_settings(spot=True, skip_tuning=True), REGION)
    last = cost_of([training(1000, 300)], spot)
    again = estimate(pipeline, make_settings(spot=True, skip_tuning=True), REGION, last)
    assert of(again, "training")["expected_seconds"] == 300
    on_demand = estimate(pipeline, make_settings(skip_tuning=True), REGION, last)
    assert of(on_demand, "training")["expected_seconds"] == 1000


def test_a_run_above_its_budget_is_refused_with_the_numbers(
    pipeline: Pipeline, make_settings: MakeSettings
) -> None:
    costs = estimate(pipeline, make_settings(), REGION)
    check_budget(costs, None)
    check_budget(costs, costs["max_usd"])
    with pytest.raises(PlanError) as error:
        check_budget(costs, 2.5)
    text = str(error.value)
    assert f"may cost {money(costs['max_usd'])} (tuning $3.77, training $0.94, evaluation $0.24)" in text
    assert "more than max_cost_usd $2.50" in text
    assert "Lower max_jobs, job.max_runtime_seconds or tuning.max_runtime_seconds" in text


def test_an_unknown_price_stops_only_a_run_with_a_budget(
    pipeline: Pipeline, make_settings: MakeSettings
) -> None:
    settings = make_settings(instance_type="ml.q9.xlarge")
    costs = estimate(pipeline, settings, REGION)
    assert (costs["max_usd"], costs["unknown"]) == (None, ["ml.q9.xlarge"])
    check_budget(costs, None)
    with pytest.raises(PlanError, match=r"ml\.q9\.xlarge has no known price in us-east-1\. .*`prices: \{ml"):
        check_budget(costs, 100)
    priced = pipeline.model_copy(update={"prices": {"ml.q9.xlarge": 2.0}})
    check_budget(estimate(priced, settings, REGION), 100)
    assert estimate(pipeline, make_settings(), "mars-north-1")["unknown"] == ["ml.m5.large", "ml.m5.xlarge"]


def test_the_cost_of_every_job(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    jobs = [trial("a", 1800), trial("b", 900, "Stopped"), training(3600, 3600), EVALUATION]
    costs = cost_of(jobs, estimate(pipeline, make_settings(), REGION))
    assert [row["job"] for row in costs["jobs"]] == ["a", "b", "train", "evaluate"]
    assert costs["jobs"][2]["usd"] == pytest.approx(M5_XLARGE)
    assert costs["jobs"][2]["spot_saving"] is None
    assert costs["by_kind"]["tuning"] == {
        "jobs": 2,
        "billable_seconds": 2700,
        "usd": pytest.approx(0.75 * M5_XLARGE),
    }
    assert costs["usd"] == pytest.approx((2700 + 3600 + 120) / HOUR * M5_XLARGE)
    assert costs["complete"]
    assert "evaluate" in cost_table(costs)


def test_savings_of_spot_capacity(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    """AWS: (1 - BillableTimeInSeconds / TrainingTimeInSeconds)."""
    jobs = [BilledJob("tuning", "a", "Completed", 1000, 250), training(500, 100)]
    costs = cost_of(jobs, estimate(pipeline, make_settings(spot=True), REGION))
    assert [row["spot_saving"] for row in costs["jobs"]] == [0.75, 0.8]
    assert "80%" in cost_table(costs)


def test_what_is_unknown_stays_unknown(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    nothing = cost_of([], None)
    assert (nothing["usd"], nothing["jobs"]) == (0, [])
    costs = cost_of([training(10, 10)], None)
    assert (costs["jobs"][0]["usd"], costs["complete"]) == (None, False)
    assert "at least" in cost_table(costs)
