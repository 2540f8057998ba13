"""Restarts of the runtime: endpoints are resumed, and interrupted transitions finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import HostingClient
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for

BUCKET = "recovery"
ROLE = "arn:aws:iam::123456789012:role/SageMakerRetrainingRole"


@pytest.fixture(scope="module")
def hosting(make_runtime: Callable[..., RuntimeProcess]) -> Iterator[HostingClient]:
    """A runtime to be killed; tests delete their endpoints."""
    runtime = make_runtime()
    client = HostingClient(runtime, BUCKET, ROLE)
    client.s3.create_bucket(Bucket=BUCKET)
    yield client
    runtime.close()


def crash(hosting: HostingClient) -> None:
    hosting.runtime.kill()
    hosting.runtime.start()


def servers(hosting: HostingClient, endpoint: str) -> set[int]:
    """The model servers of an endpoint of this runtime."""
    folder = str(hosting.runtime.root / "endpoint" / endpoint) + "/"
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or []
        is_server = len(command) > 2 and command[1] == "-P" and command[2].endswith("serve.py")
        if is_server and any(folder in part for part in command):
            found.add(process.info["pid"])
    return found


def test_running_workers_are_adopted(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one")))
    before = hosting.invoke(endpoint)["pid"]
    crash(hosting)
    assert hosting.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "InService"
    assert hosting.invoke(endpoint)["pid"] == before
    hosting.delete(endpoint)
    wait_for(lambda: not servers(hosting, endpoint), 10, "the adopted worker to end with its endpoint")


def test_dead_workers_are_started_again(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one")))
    before = hosting.invoke(endpoint)["pid"]
    hosting.runtime.kill()
    psutil.Process(before).kill()
    hosting.runtime.start()
    assert hosting.invoke(endpoint)["pid"] != before
    hosting.delete(endpoint)


def test_a_stopped_runtime_leaves_no_process_and_serves_after_a_start(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one")))
    assert hosting.runtime.stop() == 0
    assert servers(hosting, endpoint) == set()
    hosting.runtime.start()
    assert hosting.invoke(endpoint)["version"] == "one"
    hosting.delete(endpoint)


def test_an_endpoint_that_was_being_created_gets_into_service(hosting: HostingClient) -> None:
    config = hosting.config(hosting.model("one"))
    hosting.sagemaker.create_endpoint(EndpointName="young", EndpointConfigName=config)
    crash(hosting)
    assert hosting.settled("young")["EndpointStatus"] == "InService"
    assert hosting.invoke("young")["version"] == "one"
    hosting.delete("young")


def test_an_interrupted_update_is_continued(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("old")))
    new = hosting.config(hosting.model("new"))
    hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=new)
    crash(hosting)
    assert hosting.invoke(endpoint)["version"] in {"old", "new"}
    response = hosting.settled(endpoint)
    assert (response["EndpointStatus"], response["EndpointConfigName"]) == ("InService", new)
    assert hosting.invoke(endpoint)["version"] == "new"
    wait_for(lambda: len(servers(hosting, endpoint)) == 1, 10, "the old fleet to end")
    hosting.delete(endpoint)


def test_a_canary_in_bake_time_starts_again_and_keeps_its_alarm(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("old"), 2))
    new = hosting.config(hosting.model("new"), 2)
    cloudwatch = hosting.runtime.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    routing = {
        "Type": "CANARY",
        "WaitIntervalInSeconds": 2,
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
    }
    hosting.sagemaker.update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=new,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
        },
    )
    wait_for(lambda: hosting.invoke(endpoint)["version"] == "new", 60, "the canary")
    crash(hosting)
    [alarm] = cloudwatch.describe_alarms(AlarmNames=["errors"])["MetricAlarms"]
    assert (alarm["MetricName"], alarm["Threshold"]) == ("Invocation5XXErrors", 1.0)
    assert hosting.settled(endpoint)["EndpointConfigName"] == new
    hosting.delete(endpoint)


def test_an_interrupted_deletion_is_finished(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one", sleep=2)))
    hosting.sagemaker.delete_endpoint(EndpointName=endpoint)
    crash(hosting)

    def gone() -> bool:
        try:
            hosting.sagemaker.describe_endpoint(EndpointName=endpoint)
        except ClientError:
            return True
        return False

    wait_for(gone, 20, "the endpoint to be gone")
    wait_for(lambda: not servers(hosting, endpoint), 10, "its workers to be gone")


def test_log_lines_of_instances_are_neither_lost_nor_repeated(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("one")))
    logs, group = hosting.runtime.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"

    def loaded() -> int:
        [stream] = logs.describe_log_streams(logGroupName=group)["logStreams"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        return [event["message"] for event in events].count("loaded version one")

    wait_for(lambda: loaded() == 1, 10, "the model's line in CloudWatch Logs")
    crash(hosting)
    hosting.invoke(endpoint)
    assert loaded() == 1
    hosting.delete(endpoint)
    crash(hosting)
    assert loaded() == 1
