"""The images' URIs, held against the SageMaker SDK, and what is said about their end of patch."""

from __future__ import annotations

from datetime import date

import pytest
from retraining.aws import images
from retraining.aws.images import default_image, has_gpu, model_server, patch_warning, pytorch_version
from retraining.errors import PlanError

REGIONS = tuple(images.sdk_tables()["registries"])
RULE_REGIONS = tuple(images.sdk_tables()["rule_registries"])
TRAINING = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training"


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("instance_type", ["ml.m5.xlarge", "ml.g5.xlarge"])
def test_images_are_those_of_the_sdk(region: str, instance_type: str) -> None:
    from sagemaker.core import image_uris

    def of_sdk(framework: str, version: str) -> str:
        return str(image_uris.retrieve(framework, region, version=version, instance_type=instance_type))

    assert default_image("training", region, instance_type) == of_sdk("pytorch-amzn2023", "2.13")
    assert default_image("serving", region, instance_type) == of_sdk("ray-serve", "1.4")


@pytest.mark.parametrize("region", RULE_REGIONS)
def test_the_image_of_the_rules_is_that_of_the_sdk(region: str) -> None:
    from sagemaker.core.debugger.debugger import get_rule_container_image_uri

    assert images.rules_image(region) == get_rule_container_image_uri(None, region)


@pytest.mark.parametrize("region", sorted(set(REGIONS) - set(RULE_REGIONS)))
def test_where_aws_has_no_rules_the_error_names_the_way_out(region: str) -> None:
    with pytest.raises(PlanError, match=rf"{region}: set debugger: in_job"):
        images.rules_image(region)


def test_a_region_without_images_is_named_with_the_others() -> None:
    with pytest.raises(PlanError, match=r"in the region nowhere-1.*endpoint\.image_uri.*us-east-1"):
        default_image("serving", "nowhere-1", "ml.m5.large")


@pytest.mark.parametrize(
    ("instance_type", "gpu"),
    [
        ("ml.m5.xlarge", False),
        ("ml.c6i.large", False),
        ("ml.t2.medium", False),
        ("ml.g4dn.xlarge", True),
        ("ml.g6e.xlarge", True),
        ("ml.p4d.24xlarge", True),
    ],
)
def test_the_instance_type_tells_the_processor(instance_type: str, *, gpu: bool) -> None:
    assert has_gpu(instance_type) is gpu


@pytest.mark.parametrize(
    ("instance_type", "processors"),
    [
        ("ml.c7g.large", "ARM"),
        ("ml.m6gd.large", "ARM"),
        ("ml.t4g.medium", "ARM"),
        ("ml.inf2.xlarge", "Inferentia"),
        ("ml.trn1.2xlarge", "Trainium"),
    ],
)
def test_a_processor_without_an_image_is_refused(instance_type: str, processors: str) -> None:
    with pytest.raises(PlanError, match=f"{instance_type} has {processors} processors"):
        has_gpu(instance_type)


@pytest.mark.parametrize(
    ("uri", "today", "warning"),
    [
        (f"{TRAINING}:2.9.0-cpu-py312", date(2026, 10, 16), "not patched .* since 2026-10-15"),
        (f"{TRAINING}:2.9-gpu-py312", date(2026, 10, 15), "only until 2026-10-15, 0 more days"),
        (f"{TRAINING}:2.10.0-cpu-py313", date(2026, 11, 22), "only until 2027-01-21, 60 more days"),
        (f"{TRAINING}:2.10.0-cpu-py313", date(2026, 11, 21), None),
        (f"{TRAINING}:1.5.1-cpu-py36", date(2026, 11, 21), None),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4", date.max, None),
        ("registry.example/team/pytorch@sha256:0123", date.max, None),
    ],
)
def test_an_image_is_warned_of_sixty_days_before_its_end_of_patch(
    uri: str, today: date, warning: str | None
) -> None:
    text = patch_warning(uri, today)
    if warning is None:
        assert text is None
    else:
        with pytest.raises(AssertionError, match=warning):
            raise AssertionError(text)


def test_an_image_tells_its_server_and_version() -> None:
    ray = default_image("serving", "us-east-1", "ml.m5.large")
    torchserve = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
    own = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:latest"
    assert [model_server(uri) for uri in (ray, torchserve, own)] == ["Ray Serve", "TorchServe", None]
    assert [pytorch_version(uri) for uri in (ray, torchserve, own)] == ["2.10", "2.6", None]
