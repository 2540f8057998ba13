"""What tasks return to each other: one type a task, as the JSON that XCom keeps.

Times are ISO 8601 strings, durations seconds, money USD, URIs s3:// without a slash at their end. Requests to
AWS have boto3's own types. Cheap to import, because a DAG file does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef
    from mypy_boto3_sagemaker.type_defs import (
        CreateEndpointConfigInputTypeDef,
        CreateEndpointInputTypeDef,
        CreateHyperParameterTuningJobRequestTypeDef,
        CreateModelInputTypeDef,
        CreateProcessingJobRequestTypeDef,
        CreateTrainingJobRequestTypeDef,
    )

RuleVerdict = Literal["ok", "ignored", "warning", "blocks", "unknown"]
RunVerdict = Literal["live", "kept", "unchanged", "failed", "unfinished"]

# The dataset


class ChangeCounts(TypedDict):
    """Numbers of images."""

    added: int
    removed: int
    changed: int


class DatasetChanges(ChangeCounts):
    """Changes since the run `since`, in all and by class; classes without a change are left out."""

    since: str
    classes: dict[str, ChangeCounts]


class DatasetFacts(TypedDict):
    """What identifies a dataset; `images` counts them by split."""

    uri: str
    digest: str
    manifest: str
    images: dict[str, int]


class DatasetResult(DatasetFacts):
    """Of `check_dataset`. `counts` are images by split and class; `changes` is None for a first run.

    `left_out` is the URI of the list of damaged images, None where there is none. They are not counted.
    """

    bucket: str
    prefix: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    warnings: list[str]
    left_out: str | None
    changes: DatasetChanges | None
    report: str
    report_url: str


# Costs


class EstimatedJob(TypedDict):
    """One kind of job. Money is None where the price is unknown; `expected_*` is None where the last run had
    no such job on such an instance.
    """

    kind: str
    instance_type: str
    usd_per_hour: float | None
    spot: bool
    jobs: int
    volume_gb: int
    max_seconds: int
    max_usd: float | None
    expected_seconds: float | None
    expected_usd: float | None


class EndpointCost(TypedDict):
    """The endpoint outlives the run, and no sum includes it."""

    instance_type: str
    count: int
    usd_per_hour: float | None
    usd_per_month: float | None


class PriceSource(TypedDict):
    read_on: str
    source: str


class CostEstimate(TypedDict):
    """What a run may cost. Sums are None unless all their parts are known; `unknown` are instance types
    without a price.
    """

    region: str
    prices: PriceSource
    jobs: list[EstimatedJob]
    max_usd: float | None
    expected_usd: float | None
    unknown: list[str]
    endpoint: EndpointCost
    storage_gb_month: float


class JobCost(TypedDict):
    """One job that ran. `usd` is None where seconds or price are unknown; `spot_saving` is the share of the
    time that was not billed, None without spot capacity.
    """

    kind: str
    job: str
    status: str
    instance_type: str | None
    seconds: float | None
    billable_seconds: float | None
    usd: float | None
    spot_saving: float | None


class KindCost(TypedDict):
    jobs: int
    billable_seconds: float
    usd: float | None


class ActualCost(TypedDict):
    """What a run's jobs cost: sums of what is known, `complete` if everything is."""

    jobs: list[JobCost]
    by_kind: dict[str, KindCost]
    billable_seconds: float
    usd: float
    complete: bool


# Plan


class ModelSettings(TypedDict):
    arch: str
    trainable: str
    image_size: int | None


class Fingerprint(TypedDict):
    """Digests of what decides a run's result (SHA-256, 16 hex digits each)."""

    data: str
    code: str
    weights: str
    configuration: str


class RunFacts(TypedDict):
    """The part of the plan that is about the run itself."""

    name: str
    run_id: str
    pipeline: str
    region: str
    bucket: str
    output: str
    code: str
    weights: str | None
    dataset: DatasetFacts
    model: ModelSettings
    endpoint: str
    fingerprint: Fingerprint
    approval: bool
    cost: CostEstimate


class DeploymentRequest(TypedDict):
    """The `config` of SageMakerEndpointOperator."""

    Model: CreateModelInputTypeDef
    EndpointConfig: CreateEndpointConfigInputTypeDef
    Endpoint: CreateEndpointInputTypeDef


class Plan(TypedDict):
    """Of `plan`. `tuning` is None for a run that skips it; `alarms` are put before the endpoint changes."""

    run: RunFacts
    tuning: CreateHyperParameterTuningJobRequestTypeDef | None
    training: CreateTrainingJobRequestTypeDef
    evaluation: CreateProcessingJobRequestTypeDef
    deployment: DeploymentRequest
    alarms: list[PutMetricAlarmInputTypeDef]


class Search(TypedDict):
    """What a run remembers of its tuning job."""

    job: str
    run: str
    model: ModelSettings
    data: str
    code: str
    weights: str
    objective: float | None
    hyperparameters: dict[str, str]


class LastRun(TypedDict):
    """Of `remember`: what a run leaves to the next one. `before` is the record of the run before it, without
    that record's own `before`.
    """

    format_version: int
    run: str
    run_id: str
    at: str
    fingerprint: Fingerprint
    dataset: DatasetFacts
    search: Search | None
    live: bool
    outcome: str
    costs: ActualCost
    before: LastRun | None


# Jobs


class Trial(TypedDict):
    """`reason` is why it failed; None where it did not."""

    name: str
    status: str
    objective: float | None
    hyperparameters: dict[str, str]
    seconds: float | None
    reason: str | None


class TuningResult(TypedDict):
    """Of `tune`. `objective` is the metric's name."""

    job: str
    status: str
    seconds: float | None
    objective: str
    trials: list[Trial]
    best: Trial


class ReportedTraining(TypedDict):
    """What the report keeps of TrainingResult."""

    job: str
    status: str
    seconds: float | None
    billable_seconds: float | None
    metrics: dict[str, float]
    model_artifact: str


class TrainingResult(ReportedTraining):
    """Of `train`. `output` is the folder of the job's request; `Training` is SageMaker's own description, as
    the provider's operator returns it.
    """

    arn: str
    hyperparameters: dict[str, str]
    output: str
    Training: Mapping[str, Any]


class RuleResult(TypedDict):
    """A Debugger rule and what it means for the run. `step` is the training step of a finding."""

    rule: str
    status: str
    policy: str
    verdict: RuleVerdict
    step: int | None
    finding: str
    advice: str
    details: str


class ReportedRules(TypedDict):
    """What the report keeps of DebuggerResult; `report` is the profiler's page."""

    mode: str
    rules: list[RuleResult]
    report: str | None


class DebuggerResult(ReportedRules):
    """Of `debugger_status`. `blocking` names the rules that stop the run."""

    blocking: list[str]
    report_url: str | None


# Challenger and champion


class Champion(TypedDict):
    """The model to compare with: the endpoint configuration that serves it, its archive's URI, and the ARN of
    its version in the registry.
    """

    endpoint: str
    config: str
    model: str | None
    artifact: str
    package: str | None


class Candidates(TypedDict):
    """The archives compared. `champion` is None where no model in service is worth a comparison; `replaces`
    is the configuration in service, champion or not.
    """

    challenger: str
    champion: Champion | None
    replaces: str | None


class EvaluationResult(Candidates):
    """Of `evaluate`. `output` is the folder of evaluation.json and its charts."""

    job: str
    status: str
    seconds: float | None
    output: str


class GateCheck(TypedDict):
    name: str
    passed: bool
    value: float | None
    threshold: float
    text: str


class ModelFigures(TypedDict):
    """A model's figures on the test split; latency in milliseconds for one image on the CPU."""

    arch: str
    image_size: int
    classes: int
    accuracy: float
    top5_accuracy: float
    macro_f1: float
    calibration_error: float
    latency_ms: float | None
    parameters: int


class Difference(TypedDict):
    """Challenger minus champion; the interval is two-sided, each bound one-sided, all at one confidence."""

    challenger: float
    champion: float
    difference: float
    interval: list[float]
    lower_bound: float
    upper_bound: float


class Improvement(Difference):
    """The difference of accuracies; `confidence` in percent."""

    confidence: float


ClassRecall = TypedDict(
    "ClassRecall",
    {
        "class": str,
        "support": int,
        "challenger": float,
        "champion": float | None,
        "difference": float | None,
    },
)
"""Recall of one class with `support` test images; the last two are None without a champion."""


class GateFigures(TypedDict):
    """`champion` and `improvement` are None for a first model; `test` counts its images and classes."""

    challenger: ModelFigures
    champion: ModelFigures | None
    improvement: Improvement | None
    weakest_classes: list[ClassRecall]
    test: dict[str, int]


class Decision(TypedDict):
    """The gate's decision; `champion` says whether there was one. `ask` is why a person has to approve,
    whatever the settings say; None where they decide.
    """

    approved: bool
    ask: str | None
    sentence: str
    champion: bool
    checks: list[GateCheck]
    figures: GateFigures


class GateResult(Decision):
    """Of `gate`, with the URIs of evaluation.json and of its charts."""

    evaluation: str
    charts: list[str]


class PackageResult(TypedDict):
    """Of `register`: a version in the model registry."""

    group: str
    version: int
    arn: str
    status: str


class ApprovalResult(TypedDict):
    """Of `approve`. `by` and `at` are None where nobody was asked."""

    approved: bool
    sentence: str
    by: str | None
    at: str | None


# Endpoint


class EndpointResult(TypedDict):
    """Of `deploy`. `previous` is the configuration that was in service before, also where an earlier attempt
    of the task has replaced it; None for a new endpoint.
    """

    name: str
    config: str
    model: str
    status: str
    seconds: float
    created: bool
    previous: str | None


ClassProbability = TypedDict(
    "ClassProbability", {"class": str, "probability": float, "label": NotRequired[str]}
)

Prediction = TypedDict(
    "Prediction",
    {
        "image": str,
        "class": str,
        "predicted": str,
        "probability": float,
        "milliseconds": float,
        "top": list[ClassProbability],
    },
)
"""An endpoint's response for one test image of the true class `class`."""


class VerifiedPrediction(Prediction):
    """With the evaluation's prediction for the same image."""

    offline: ClassProbability


class Latency(TypedDict):
    """Milliseconds of a request as the client sees it."""

    median: float
    p95: float
    max: float


class Agreement(TypedDict):
    """The endpoint's predictions against the evaluation's: `agreement` is the share of the `compared` images
    with the same class.
    """

    compared: int
    agreement: float
    max_probability_difference: float


class VerificationResult(Agreement):
    """Of `verify`. `images` is the number of test images sent."""

    endpoint: str
    config: str
    images: int
    accuracy: float
    trained_accuracy: float | None
    latency_ms: Latency
    predictions: list[VerifiedPrediction]


class ResourceNames(TypedDict):
    """Names of models, endpoint configurations and run folders, and ARNs of packages."""

    models: list[str]
    configs: list[str]
    folders: list[str]
    packages: list[str]


class RetirementResult(ResourceNames):
    """Of `retire`: what was deleted, and what was kept."""

    kept: ResourceNames


# Rollback


class ReplacedModel(TypedDict):
    config: str
    artifact: str | None
    package: str | None


class RollbackTarget(TypedDict):
    package: str
    version: int
    artifact: str
    live_since: str | None


class RollbackChoice(TypedDict):
    """Of the rollback's `choose`: the deployment of `target`, which takes the place of `replaced`.

    `replaces` is the configuration that has to be in service for the deployment to begin.
    """

    deployment: DeploymentRequest
    alarms: list[PutMetricAlarmInputTypeDef]
    replaces: str
    package: str
    replaced: ReplacedModel
    target: RollbackTarget


class RollbackResult(TypedDict):
    """Of the rollback's `verify`; `latency_ms` is None without test images to send."""

    endpoint: str
    config: str
    replaced: ReplacedModel
    target: RollbackTarget
    sentence: str
    images: int
    latency_ms: Latency | None


# Report


class RunResults(TypedDict, total=False):
    """The tasks' results of one run. A task that was not reached has none; tuning may have been skipped."""

    dataset: DatasetResult
    plan: Plan
    tuning: TuningResult | None
    training: TrainingResult
    debugger: DebuggerResult
    evaluation: EvaluationResult
    gate: GateResult
    package: PackageResult
    approval: ApprovalResult
    endpoint: EndpointResult
    verification: VerificationResult
    retired: RetirementResult


class OutcomeFacts(TypedDict):
    """How a run ended; `task` and `reason` are None for one that went to its end."""

    verdict: RunVerdict
    label: str
    sentence: str
    task: str | None
    reason: str | None


class TaskState(TypedDict):
    task: str
    state: str
    reason: str | None


class Strategy(TypedDict):
    """How a deployment moves traffic, in words, and the names of its alarms."""

    text: str | None
    alarms: list[str]


class RunCost(TypedDict):
    estimate: CostEstimate | None
    actual: ActualCost


class ReportedDataset(TypedDict):
    """What the report keeps of DatasetResult."""

    uri: str
    classes: list[str]
    images: dict[str, int]
    changes: DatasetChanges | None
    warnings: list[str]
    report: str


class RunReport(TypedDict):
    """Of `report`, and, without `report_url`, the content of the run's run.json. What the run did not reach
    is None; a link that expires is nowhere but in `report_url`.
    """

    run_name: str
    pipeline: str
    at: str
    output: str
    run_id: str | None
    region: str | None
    code: str | None
    weights: str | None
    outcome: OutcomeFacts
    tasks: list[TaskState]
    dataset: ReportedDataset | None
    tuning: TuningResult | None
    maximize: bool
    hyperparameters: dict[str, str] | None
    training: ReportedTraining | None
    debugger: ReportedRules | None
    test_accuracy: float | None
    evaluation: EvaluationResult | None
    gate: GateResult | None
    package: PackageResult | None
    approval: ApprovalResult | None
    strategy: Strategy
    endpoint: EndpointResult | None
    verification: VerificationResult | None
    retired: RetirementResult | None
    cost: RunCost
    record: str
    report: str
    report_url: str
