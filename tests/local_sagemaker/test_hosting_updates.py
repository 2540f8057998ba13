"""UpdateEndpoint under traffic: no client sees a failure, whether the new configuration works or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import HostingClient, traffic
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def steady(hosting: HostingClient) -> str:
    """An endpoint that no test changes."""
    return hosting.endpoint(hosting.config(hosting.model("steady")))


def test_neither_good_nor_bad_updates_drop_a_request(hosting: HostingClient) -> None:
    first = hosting.config(hosting.model("v1", sleep=0.02), instances=2)
    endpoint = hosting.endpoint(first)
    good = [hosting.config(hosting.model(version, sleep=0.02)) for version in ("v2", "v3")]
    broken = hosting.config(hosting.model("v4", load_error="this one never loads"))

    with traffic(hosting, endpoint) as seen:
        for config in good:
            hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
            during = hosting.sagemaker.describe_endpoint(EndpointName=endpoint)
            assert during["EndpointStatus"] == "Updating"
            assert during["PendingDeploymentSummary"]["EndpointConfigName"] == config
            after = hosting.settled(endpoint)
            assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", config)
            assert "FailureReason" not in after

        hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=broken)
        after = hosting.settled(endpoint)
        assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", good[-1])
        assert "this one never loads" in after["FailureReason"]
        count = seen.requests
        wait_for(lambda: seen.requests > count + 20, 20, "traffic after the failed update")

    assert seen.failures == []
    assert set(seen.versions) == {"v1", "v2", "v3"}
    assert hosting.invoke(endpoint)["version"] == "v3"
    hosting.delete(endpoint)


def test_slow_requests_are_finished_by_the_old_fleet(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("old", sleep=1.0)))
    with traffic(hosting, endpoint, clients=2) as seen:
        new = hosting.config(hosting.model("new"))
        hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=new)
        hosting.settled(endpoint)
    assert seen.failures == []
    assert seen.versions["old"] > 0
    assert seen.versions["new"] > 0
    hosting.delete(endpoint)


def test_variant_properties_are_retained(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("v1"), instances=2))
    new = hosting.config(hosting.model("v2"), instances=1)
    hosting.sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=new, RetainAllVariantProperties=True
    )
    assert hosting.settled(endpoint)["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    hosting.delete(endpoint)


def test_an_endpoint_whose_configuration_was_deleted_cannot_be_updated(hosting: HostingClient) -> None:
    model = hosting.model("v1")
    config = hosting.config(model)
    endpoint = hosting.endpoint(config)
    new = hosting.config(hosting.model("v2"))
    hosting.sagemaker.delete_model(ModelName=model)
    hosting.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    assert hosting.invoke(endpoint)["version"] == "v1"
    with pytest.raises(ClientError, match=f"Could not find endpoint configuration.*{config}"):
        hosting.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=new)
    assert hosting.invoke(endpoint)["version"] == "v1"
    hosting.delete(endpoint)


def test_an_update_of_a_missing_endpoint_is_refused(hosting: HostingClient) -> None:
    config = hosting.config(hosting.model("v1"))
    with pytest.raises(ClientError, match="Could not find endpoint "):
        hosting.sagemaker.update_endpoint(EndpointName="nobody", EndpointConfigName=config)
    with pytest.raises(ClientError, match="Could not find endpoint "):
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="nobody", DesiredWeightsAndCapacities=[{"VariantName": "A", "DesiredWeight": 1.0}]
        )


def test_capacity_that_does_not_start_is_undone(hosting: HostingClient, tmp_path: Path) -> None:
    endpoint = hosting.endpoint(
        hosting.config(hosting.model("v1", sleep=0.02, load_once=str(tmp_path / "loaded")))
    )
    with traffic(hosting, endpoint, clients=2) as seen:
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}],
        )
        response = hosting.settled(endpoint)
    assert seen.failures == []
    assert response["EndpointStatus"] == "InService"
    assert "FileExistsError" in response["FailureReason"]
    assert response["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    hosting.delete(endpoint)


@pytest.mark.parametrize(
    ("desired", "reason"),
    [
        ({"VariantName": "B", "DesiredWeight": 1.0}, "has no variant B"),
        ({"VariantName": "AllTraffic", "DesiredInstanceCount": 0}, "at least 1"),
    ],
)
def test_impossible_capacity_is_refused(
    hosting: HostingClient, steady: str, desired: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ClientError, match=reason):
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=steady, DesiredWeightsAndCapacities=[desired]
        )
