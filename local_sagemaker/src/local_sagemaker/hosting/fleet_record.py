"""The persistent state of an endpoint's fleets, by which they are resumed after a restart."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from local_sagemaker.store import Document

STARTUP_SECONDS = 480  # AWS's default for ContainerStartupHealthCheckTimeoutInSeconds


@dataclass
class VariantRecord:
    """A production variant of a fleet. `container` is a copy, so that deleting the model changes nothing.

    `weight` is in effect now, `desired_weight` and `desired_count` are the last request's. `pending` are
    instances that a change of capacity is starting. `resolved_at` is in epoch seconds.
    """

    name: str
    container: Document
    weight: float
    desired_weight: float
    desired_count: int
    startup_seconds: int
    resolved_at: float
    instances: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    def describe(self) -> Document:
        """The variant as DescribeEndpoint shows it."""
        image = self.container["Image"]
        return {
            "VariantName": self.name,
            "DeployedImages": [
                {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": self.resolved_at}
            ],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.desired_weight,
            "CurrentInstanceCount": len(self.instances),
            "DesiredInstanceCount": self.desired_count,
        }


@dataclass
class FleetRecord:
    """All instances that run one endpoint configuration for one endpoint. `capture` is its
    DataCaptureConfig."""

    id: str
    config: str
    variants: list[VariantRecord]
    capture: Document = field(default_factory=dict)

    @classmethod
    def load(cls, document: Document) -> FleetRecord:
        variants = [VariantRecord(**item) for item in document["variants"]]
        return cls(document["id"], document["config"], variants, document["capture"])

    def dump(self) -> Document:
        return asdict(self)

    @property
    def instance_count(self) -> int:
        return sum(len(variant.instances) for variant in self.variants)

    def variant(self, name: str) -> VariantRecord | None:
        return next((variant for variant in self.variants if variant.name == name), None)


def new_instances(count: int) -> list[str]:
    """Random instance ids in EC2's form, which appear in the names of log streams."""
    return [f"i-{secrets.token_hex(8)}" for _ in range(count)]


def new_fleet(config: Document, containers: dict[str, Document], now: float) -> FleetRecord:
    """A fleet for an endpoint configuration; `containers` are container definitions by model name."""
    variants = [
        VariantRecord(
            name=item["VariantName"],
            container=containers[item["ModelName"]],
            weight=item["InitialVariantWeight"],
            desired_weight=item["InitialVariantWeight"],
            desired_count=item["InitialInstanceCount"],
            startup_seconds=item.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
            resolved_at=now,
            instances=new_instances(item["InitialInstanceCount"]),
        )
        for item in config["ProductionVariants"]
    ]
    identifier = f"fleet-{secrets.token_hex(4)}"
    return FleetRecord(
        identifier, config["EndpointConfigName"], variants, config.get("DataCaptureConfig", {})
    )


def retain(record: FleetRecord, current: FleetRecord, excluded: Iterable[str]) -> None:
    """Apply RetainAllVariantProperties: keep the data capture of `current`, and the weights and instance
    counts of variants that both have."""
    left_out = set(excluded)
    if "DataCaptureConfig" not in left_out:
        record.capture = current.capture
    for variant in record.variants:
        old = current.variant(variant.name)
        if old is None:
            continue
        if "DesiredWeight" not in left_out:
            variant.weight = variant.desired_weight = old.desired_weight
        if "DesiredInstanceCount" not in left_out:
            variant.desired_count = old.desired_count
            variant.instances = new_instances(old.desired_count)
