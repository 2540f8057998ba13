"""The AWS operations that Airflow's processes called, held against those that its policy allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from demo.environments import ROOT

ACTIONS = ROOT / "plugins" / "retraining" / "account" / "actions.yaml"

NOT_CAUSED = {
    "sagemaker.BatchDescribeModelPackage": "a rollback over more versions than these",
    "sagemaker.CreateHyperParameterTuningJob": "drills skip tuning; the test of the whole run does not",
    "sagemaker.DescribeHyperParameterTuningJob": "as above",
    "sagemaker.ListTrainingJobsForHyperParameterTuningJob": "as above",
    "sagemaker.StopHyperParameterTuningJob": "a killed task; tests/dags kills tasks",
    "sagemaker.StopProcessingJob": "as above",
    "sagemaker.StopTrainingJob": "as above",
    "sagemaker.DeleteEndpoint": "an endpoint whose creation failed is created anew",
    "sagemaker.DeleteEndpointConfig": "the drills leave fewer old models than retire keeps; its tests delete",
    "sagemaker.DeleteModel": "as above",
    "sns.Publish": "no topic is configured",
    "service-quotas.ListServiceQuotas": "the local SageMaker has no quotas",
}
"""Operations that the drills do not cause, and why."""


@dataclass(frozen=True)
class Comparison:
    """`forbidden`: called, and not in the table of actions; `uncalled`: the reverse, without NOT_CAUSED."""

    called: frozenset[str]
    forbidden: frozenset[str]
    uncalled: frozenset[str]

    def __str__(self) -> str:
        text = (
            f"{len(self.called)} AWS operations called, {len(self.forbidden)} of them not in Airflow's policy"
        )
        if self.forbidden:
            text += f": {', '.join(sorted(self.forbidden))}"
        if self.uncalled:
            text += f"; allowed and not called: {', '.join(sorted(self.uncalled))}"
        return text


def compare(file: Path) -> Comparison:
    """The recorded operations against plugins/retraining/account/actions.yaml."""
    called = frozenset(file.read_text().split()) if file.exists() else frozenset()
    table = yaml.safe_load(ACTIONS.read_text())
    allowed = {f"{service}.{operation}" for service, operations in table.items() for operation in operations}
    return Comparison(called, frozenset(called - allowed), frozenset(allowed - called - NOT_CAUSED.keys()))
