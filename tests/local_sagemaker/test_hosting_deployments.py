"""Blue/green deployments: traffic shifts in steps, and an alarm on real metrics rolls it back."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import HostingClient, traffic, unique
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def cloudwatch(runtime: RuntimeProcess) -> Any:
    return runtime.client("cloudwatch")


def blue_green(routing: dict[str, Any], alarms: list[str] | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    if alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return config


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def canary(seconds: int, share: int = 25) -> dict[str, Any]:
    return {"Type": "CANARY", "WaitIntervalInSeconds": seconds, "CanarySize": percent(share)}


def alarm(cloudwatch: Any, endpoint: str, metric: str, statistic: str, threshold: float) -> str:
    """An alarm on one minute of an endpoint's metric."""
    name = unique("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic=statistic,
        Period=60,
        EvaluationPeriods=1,
        Threshold=threshold,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    return name


def test_a_canary_gets_its_share_before_all_traffic_moves(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("old"), 2))
    config = hosting.config(hosting.model("new"), 2)
    hosting.sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig=blue_green(canary(3))
    )

    def baking() -> dict[str, Any] | None:
        response: dict[str, Any] = hosting.sagemaker.describe_endpoint(EndpointName=endpoint)
        pending = response.get("PendingDeploymentSummary", {}).get("ProductionVariants", [{}])
        return response if pending[0].get("VariantStatus", [{}])[0].get("Status") == "Baking" else None

    during = wait_for(baking, 60, "the canary")
    status = during["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]
    assert status["StatusMessage"] == "50% of the traffic goes to the new fleet"
    seen = Counter(hosting.invoke(endpoint)["version"] for _ in range(40))
    assert seen == {"old": 20, "new": 20}
    after = hosting.settled(endpoint)
    assert after["EndpointConfigName"] == config
    assert after["LastDeploymentConfig"] == blue_green(canary(3))
    assert {hosting.invoke(endpoint)["version"] for _ in range(4)} == {"new"}
    hosting.delete(endpoint)


def test_linear_steps_lead_to_all_traffic(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("old", sleep=0.02), 2))
    config = hosting.config(hosting.model("new", sleep=0.02), 2)
    linear = {"Type": "LINEAR", "WaitIntervalInSeconds": 1, "LinearStepSize": percent(50)}
    with traffic(hosting, endpoint) as seen:
        hosting.sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig=blue_green(linear)
        )
        assert hosting.settled(endpoint)["EndpointConfigName"] == config
    assert seen.failures == []
    assert set(seen.versions) == {"old", "new"}
    hosting.delete(endpoint)


def test_server_errors_of_the_canary_roll_it_back(hosting: HostingClient, cloudwatch: Any) -> None:
    old = hosting.config(hosting.model("old", sleep=0.02), 2)
    endpoint = hosting.endpoint(old)
    bad = hosting.config(hosting.model("bad", error="wrong shape", sleep=0.02), 2)
    name = alarm(cloudwatch, endpoint, "Invocation5XXErrors", "Sum", 3)
    with traffic(hosting, endpoint) as seen:
        before = seen.requests
        wait_for(lambda: seen.requests > before + 50, 30, "traffic on the old fleet")
        hosting.sagemaker.update_endpoint(
            EndpointName=endpoint,
            EndpointConfigName=bad,
            DeploymentConfig=blue_green(canary(60), [name]),
        )
        after = hosting.settled(endpoint)
        failed = len(seen.failures)
        count = seen.requests
        wait_for(lambda: seen.requests > count + 40, 30, "traffic after the rollback")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", old)
    assert f"the alarm {name} is in state ALARM" in after["FailureReason"]
    assert 0 < failed <= 0.5 * seen.requests
    assert len(seen.failures) <= failed + 4  # what was in flight when the traffic went back
    [state] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert state["StateValue"] == "ALARM"
    assert "breach the threshold" in state["StateReason"]

    with traffic(hosting, endpoint, clients=1) as seen:
        hosting.sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName=bad, DeploymentConfig=blue_green(canary(60), [name])
        )
        assert hosting.settled(endpoint)["EndpointConfigName"] == old
    assert seen.failures == []  # the alarm was still on, so no traffic moved
    hosting.delete(endpoint)


def test_a_slow_canary_is_rolled_back(hosting: HostingClient, cloudwatch: Any) -> None:
    old = hosting.config(hosting.model("old", sleep=0.02), 2)
    endpoint = hosting.endpoint(old)
    slow = hosting.config(hosting.model("slow", sleep=0.5), 2)
    microseconds = 300_000
    name = alarm(cloudwatch, endpoint, "ModelLatency", "Maximum", microseconds)
    with traffic(hosting, endpoint, clients=2) as seen:
        hosting.sagemaker.update_endpoint(
            EndpointName=endpoint,
            EndpointConfigName=slow,
            DeploymentConfig=blue_green(canary(60, share=10), [name]),
        )
        after = hosting.settled(endpoint)
    assert after["EndpointConfigName"] == old
    assert name in after["FailureReason"]
    assert seen.failures == []
    hosting.delete(endpoint)


def test_invocations_are_metrics(hosting: HostingClient, cloudwatch: Any) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one")))
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}]
    cloudwatch.put_metric_alarm(  # on a band, which cannot be worked out here and must not disturb the rest
        AlarmName=f"band-{endpoint}",
        Namespace="AWS/SageMaker",
        MetricName="ModelLatency",
        Dimensions=dimensions,
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanUpperThreshold",
    )
    for _ in range(5):
        hosting.invoke(endpoint)
    with pytest.raises(hosting.inference.exceptions.ModelError):
        hosting.invoke(endpoint, {"error": "no"})

    def statistics(metric: str) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=dimensions,
            StartTime=datetime.now(UTC) - timedelta(minutes=5),
            EndTime=datetime.now(UTC) + timedelta(minutes=1),
            Period=300,
            Statistics=["Sum", "Average"],
        )["Datapoints"]
        return points

    wait_for(lambda: sum(point["Sum"] for point in statistics("Invocations")) == 6, 20, "the figures")
    assert sum(point["Sum"] for point in statistics("Invocation5XXErrors")) == 1
    assert 0 < statistics("ModelLatency")[0]["Average"] < 5e6
    hosting.delete(endpoint)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (blue_green({"Type": "CANARY", "WaitIntervalInSeconds": 0}), "needs CanarySize"),
        (blue_green(canary(0, share=80)), "80% requested"),
        (blue_green(canary(0, share=10)), "1 of the new fleet's 1 instances"),
        (
            blue_green(
                {"Type": "LINEAR", "WaitIntervalInSeconds": 0, "LinearStepSize": percent(5)},
            ),
            "10% to 50%",
        ),
        (
            blue_green({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}, ["nobody"]),
            "nobody does not exist",
        ),
        (
            {"RollingUpdatePolicy": {"MaximumBatchSize": percent(50), "WaitIntervalInSeconds": 0}},
            "no rolling",
        ),
    ],
)
def test_impossible_deployments_are_refused(
    hosting: HostingClient, steady: str, config: dict[str, Any], reason: str
) -> None:
    new = hosting.config(hosting.model("new"))
    with pytest.raises(ClientError, match=reason) as error:
        hosting.sagemaker.update_endpoint(
            EndpointName=steady, EndpointConfigName=new, DeploymentConfig=config
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"


@pytest.fixture(scope="module")
def steady(hosting: HostingClient) -> str:
    """An endpoint that no test changes."""
    return hosting.endpoint(hosting.config(hosting.model("steady")))
