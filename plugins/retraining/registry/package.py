"""A version of the model registry as a request: the model, where it came from, and how good it is.

A version in a group has no tags of its own, so what is known of it stands in CustomerMetadataProperties: at
most 50 texts of 256 characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from retraining.config.pipeline import Pipeline
from retraining.planning.evaluation import MODEL_QUALITY

Request = dict[str, Any]
Result = Mapping[str, Any]

_DESCRIPTION_LIMIT = 1024
_CONTENT_TYPES = ["image/jpeg", "image/png", "application/x-image"]
_ANSWER_TYPES = ["application/json"]
_FIGURES = ("accuracy", "top5_accuracy", "macro_f1")  # of the challenger, in the metadata
_MOST_METADATA = 50
_KEPT_FREE = 4  # for what is added to a version later
_KEY_LIMIT, _VALUE_LIMIT = 128, 256
_NOT_IN_METADATA = re.compile(r"[^\w\s.:/=+\-@]")  # the API's pattern: letters, digits, spaces, _.:/=+-@


def package_request(
    *,
    pipeline: Pipeline,
    plan: Result,
    dataset: Result,
    training: Result,
    evaluation: Result,
    gate: Result,
    candidates: Result,
    tuning: Result | None,
    rules: str,
) -> Request:
    """The CreateModelPackage request but for its approval status; `rules` is the rule table's URI."""
    run = plan["run"]
    return {
        "ModelPackageGroupName": pipeline.package_group,
        "ModelPackageDescription": description(f"{run['name']}: {gate['sentence']}"),
        "InferenceSpecification": _inference(pipeline, plan["deployment"], training),
        "ModelMetrics": _metrics(evaluation),
        "CustomerMetadataProperties": _metadata(
            run=run,
            dataset=dataset,
            training=training,
            evaluation=evaluation,
            gate=gate,
            candidates=candidates,
            tuning=tuning,
            rules=rules,
        ),
        "MetadataProperties": _lineage(run, training),
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "ClientToken": _token(pipeline.package_group, run["name"], training["model_artifact"]),
    }


def description(text: str) -> str:
    """A text as the registry takes it for a description: on one line, and not too long."""
    return " ".join(text.split())[:_DESCRIPTION_LIMIT]


def _token(group: str, run: str, artifact: str) -> str:
    """The same for every try of a run to register the same model: 36 letters and digits at most."""
    return hashlib.sha256(f"{group} {run} {artifact}".encode()).hexdigest()[:36]


def _inference(pipeline: Pipeline, deployment: Result, training: Result) -> Request:
    planned = deployment["Model"]["PrimaryContainer"]
    container = {
        "Image": planned["Image"],
        "Environment": planned["Environment"],
        "ModelDataUrl": training["model_artifact"],
        "Framework": "PYTORCH",
        "FrameworkVersion": pipeline.endpoint.framework_version,
    }
    return {
        "Containers": [container],
        "SupportedContentTypes": _CONTENT_TYPES,
        "SupportedResponseMIMETypes": _ANSWER_TYPES,
    }


def _metrics(evaluation: Result) -> Request:
    statistics = {"ContentType": "application/json", "S3Uri": f"{evaluation['output']}/{MODEL_QUALITY}"}
    return {"ModelQuality": {"Statistics": statistics}}


def _lineage(run: Result, training: Result) -> dict[str, str]:
    """AWS's MetadataProperties: the code archive is named by its digest, which stands for a commit."""
    code = str(run["code"])
    return {
        "CommitId": code.split("/")[-2],
        "Repository": code,
        "GeneratedBy": training["Training"]["TrainingJobArn"],
        "ProjectId": run["pipeline"],
    }


def _metadata(
    *,
    run: Result,
    dataset: Result,
    training: Result,
    evaluation: Result,
    gate: Result,
    candidates: Result,
    tuning: Result | None,
    rules: str,
) -> dict[str, str]:
    """Where the version came from and how good it is, as texts that the registry takes."""
    champion = candidates["champion"]
    improvement = gate["figures"]["improvement"] or {}
    values = {
        "pipeline": run["pipeline"],
        "run": run["name"],
        "run-id": run["run_id"],
        "code": run["code"],
        "data": dataset["uri"],
        "data-digest": dataset["digest"],
        "fingerprint": _digest(run.get("fingerprint")),
        "training-job": training["job"],
        "tuning-job": tuning["job"] if tuning else None,
        "evaluation-job": evaluation["job"],
        "evaluation": evaluation["output"],
        "rules": rules,
        "gate": "approved" if gate["approved"] else "rejected",
        "champion": (champion["package"] or champion["artifact"]) if champion else "none",
        **{name: gate["figures"]["challenger"].get(name) for name in _FIGURES},
        "champion-accuracy": (gate["figures"]["champion"] or {}).get("accuracy"),
        "improvement": improvement.get("difference"),
        "improvement-lower-bound": improvement.get("lower_bound"),
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


def _digest(fingerprint: Any) -> str | None:
    """A digest of the run's fingerprint, which names data, code, weights and settings."""
    if fingerprint is None or isinstance(fingerprint, str):
        return fingerprint
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
