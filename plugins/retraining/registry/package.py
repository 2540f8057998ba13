"""The request for a version in the model registry: the model, where it came from, and how good it is.

A version in a group cannot have tags, so its origin and its figures are in CustomerMetadataProperties, which
takes at most 50 texts of 256 characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from retraining.aws.images import pytorch_version
from retraining.config.pipeline import Pipeline
from retraining.planning.evaluation import MODEL_QUALITY
from retraining.runs.results import DeploymentRequest, RunFacts, RunResults, TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import ModelApprovalStatusType
    from mypy_boto3_sagemaker.type_defs import (
        CreateModelPackageInputTypeDef,
        InferenceSpecificationTypeDef,
        MetadataPropertiesTypeDef,
        MetricsSourceTypeDef,
        ModelPackageContainerDefinitionTypeDef,
    )

CONTENT_TYPES = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/webp",
    "application/x-image",
    "application/octet-stream",
    "application/json",
)
RESPONSE_TYPES = ("application/json",)

_DESCRIPTION_LIMIT = 1024
_MOST_METADATA = 50
_KEPT_FREE = 4  # for what is added to a version later
_KEY_LIMIT, _VALUE_LIMIT = 128, 256
_NOT_IN_METADATA = re.compile(r"[^\w\s.:/=+\-@]")  # the API's pattern: letters, digits, spaces, _.:/=+-@


def package_request(
    pipeline: Pipeline, results: RunResults, rules: str, status: ModelApprovalStatusType
) -> CreateModelPackageInputTypeDef:
    """The CreateModelPackage request; `rules` is the URI of the rule table."""
    run, training, evaluation = results["plan"]["run"], results["training"], results["evaluation"]
    quality: MetricsSourceTypeDef = {
        "ContentType": "application/json",
        "S3Uri": f"{evaluation['output']}/{MODEL_QUALITY}",
    }
    return {
        "ModelApprovalStatus": status,
        "ModelPackageGroupName": pipeline.package_group,
        "ModelPackageDescription": description(f"{run['name']}: {results['gate']['sentence']}"),
        "InferenceSpecification": _inference(results["plan"]["deployment"], training),
        "ModelMetrics": {"ModelQuality": {"Statistics": quality}},
        "CustomerMetadataProperties": _metadata(results, rules),
        "MetadataProperties": _lineage(run, training),
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "ClientToken": _token(pipeline.package_group, run["name"], training["model_artifact"]),
    }


def description(text: str) -> str:
    """The text as a description for the registry: on one line, cut to 1,024 characters."""
    return " ".join(text.split())[:_DESCRIPTION_LIMIT]


def _token(group: str, run: str, artifact: str) -> str:
    """The same for every attempt of a run to register the same model; at most 36 letters and digits."""
    return hashlib.sha256(f"{group} {run} {artifact}".encode()).hexdigest()[:36]


def _inference(deployment: DeploymentRequest, training: TrainingResult) -> InferenceSpecificationTypeDef:
    planned = deployment["Model"]["PrimaryContainer"]
    container: ModelPackageContainerDefinitionTypeDef = {
        "Image": planned["Image"],
        "Environment": planned["Environment"],
        "ModelDataUrl": training["model_artifact"],
        "Framework": "PYTORCH",
    }
    if version := pytorch_version(planned["Image"]):
        container["FrameworkVersion"] = version
    return {
        "Containers": [container],
        "SupportedContentTypes": CONTENT_TYPES,
        "SupportedResponseMIMETypes": RESPONSE_TYPES,
    }


def _lineage(run: RunFacts, training: TrainingResult) -> MetadataPropertiesTypeDef:
    """AWS's MetadataProperties; the digest of the code archive stands for a commit."""
    return {
        "CommitId": run["code"].split("/")[-2],
        "Repository": run["code"],
        "GeneratedBy": training["arn"],
        "ProjectId": run["pipeline"],
    }


def _metadata(results: RunResults, rules: str) -> dict[str, str]:
    """Origin and figures of the version, as texts that the registry accepts."""
    run, training, evaluation = results["plan"]["run"], results["training"], results["evaluation"]
    figures, tuning, champion = results["gate"]["figures"], results.get("tuning"), evaluation["champion"]
    challenger, improvement = figures["challenger"], figures["improvement"]
    values: dict[str, str | float | None] = {
        "pipeline": run["pipeline"],
        "run": run["name"],
        "run-id": run["run_id"],
        "code": run["code"],
        "data": run["dataset"]["uri"],
        "data-digest": run["dataset"]["digest"],
        "fingerprint": _digest(run["fingerprint"]),
        "training-job": training["job"],
        "tuning-job": tuning["job"] if tuning else None,
        "evaluation-job": evaluation["job"],
        "evaluation": evaluation["output"],
        "rules": rules,
        "gate": "approved" if results["gate"]["approved"] else "rejected",
        "champion": (champion["package"] or champion["artifact"]) if champion else "none",
        "accuracy": challenger["accuracy"],
        "top5_accuracy": challenger["top5_accuracy"],
        "macro_f1": challenger["macro_f1"],
        "champion-accuracy": figures["champion"]["accuracy"] if figures["champion"] else None,
        "improvement": improvement["difference"] if improvement else None,
        "improvement-lower-bound": improvement["lower_bound"] if improvement else None,
        **{
            f"hyperparameter:{name}": value
            for name, value in sorted(training["hyperparameters"].items())
            if not name.startswith("sagemaker_")
        },
    }
    texts = {
        name[:_KEY_LIMIT]: _NOT_IN_METADATA.sub(" ", _text(value))[:_VALUE_LIMIT]
        for name, value in values.items()
        if value not in (None, "")
    }
    return dict(list(texts.items())[: _MOST_METADATA - _KEPT_FREE])


def _text(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _digest(document: object) -> str:
    """SHA-256 of the document as JSON, in hex digits."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
