"""The Debugger and profiler parts of a training request, equal to what the SageMaker SDK builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from retraining.aws.images import rules_image, sdk_tables
from retraining.config.hyperparameters import near_match
from retraining.config.pipeline import Pipeline
from retraining.config.sections import DebuggerRule, Profiler
from retraining.errors import PlanError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        CreateTrainingJobRequestTypeDef,
        DebugHookConfigTypeDef,
        ProfilerConfigTypeDef,
    )

PROFILER_REPORT = "ProfilerReport"

# Of the profiler in the framework, as the SDK writes them: not JSON, because of the commas at the end.
_STEPS = '{"StartStep": 0, "NumSteps": %d, }'
_PROFILING = {
    "LocalPath": "/opt/ml/output/profiler",
    "RotateMaxFileSizeInBytes": "10485760",
    "RotateFileCloseIntervalInSeconds": "60",
    "FileOpenFailThreshold": "50",
    "DetailedProfilingConfig": _STEPS,
    "DataloaderProfilingConfig": '{"StartStep": 0, "NumSteps": %d, "MetricsRegex": ".*", }',
    "PythonProfilingConfig": '{"StartStep": 0, "NumSteps": %d, "ProfilerName": "cprofile", "cProfileTimer": '
    '"total_time", }',
    "HorovodProfilingConfig": _STEPS,
    "SMDataParallelProfilingConfig": _STEPS,
}


def known_rules() -> Mapping[str, Any]:
    """AWS's built-in rules by name: `parameters`, and `collections` that they read.

    `sagemaker_code/debugger/rules` implements the same ones; a test compares both lists.
    """
    rules: Mapping[str, Any] = sdk_tables()["rules"]
    return rules


def with_debugger(
    request: CreateTrainingJobRequestTypeDef, pipeline: Pipeline, region: str
) -> CreateTrainingJobRequestTypeDef:
    """The request with hook, rules and profiler, whose files go to the job's output path.

    Only mode `service` asks for any of them. Raises PlanError for a rule that does not exist, in every mode,
    and in mode `service` for a region in which AWS evaluates no rules.
    """
    known = known_rules()
    for name in pipeline.rules:
        if name not in known:
            raise PlanError(
                f"Pipeline {pipeline.name}: there is no Debugger rule {name!r}{near_match(name, known)}."
            )
    if pipeline.debugger != "service":
        return {**request, "ProfilerConfig": {"DisableProfiler": True}}
    output = request["OutputDataConfig"]["S3OutputPath"]
    image = rules_image(region)
    watched: CreateTrainingJobRequestTypeDef = {
        **request,
        "DebugHookConfig": _hook(pipeline, output),
        "DebugRuleConfigurations": [
            {
                "RuleConfigurationName": name,
                "RuleEvaluatorImage": image,
                "RuleParameters": _parameters(name, rule, request["TrainingJobName"]),
            }
            for name, rule in pipeline.rules.items()
        ],
        "ProfilerConfig": _profiler(pipeline.profiler, output),
    }
    if pipeline.profiler.report:
        watched["ProfilerRuleConfigurations"] = [
            {
                "RuleConfigurationName": PROFILER_REPORT,
                "RuleEvaluatorImage": image,
                "RuleParameters": {"rule_to_invoke": PROFILER_REPORT},
            }
        ]
    return watched


def debugger_hyperparameters(pipeline: Pipeline) -> dict[str, str]:
    """What the training script must know to evaluate the rules itself, or to leave Debugger out."""
    if pipeline.debugger == "service":
        return {}
    if pipeline.debugger == "off":
        return {"debugger": "off"}
    rules = [
        _in_job(
            name, {**rule.parameters, **({"stop_training_on_fire": "true"} if rule.stop_training else {})}
        )
        for name, rule in pipeline.rules.items()
    ]
    if pipeline.profiler.report:
        rules.append(PROFILER_REPORT)
    return {
        "debugger": "in_job",
        "debugger-rules": ",".join(rules) or "none",  # an empty one would be lost in the shell command
        "debugger-sampling-ms": str(pipeline.profiler.system_interval_ms),
        "debugger-profile-steps": str(pipeline.profiler.framework_steps),
    }


def _in_job(name: str, parameters: Mapping[str, str]) -> str:
    """A rule as a hyperparameter: `NAME:parameter=value:...`, values percent-encoded.

    AWS's images put hyperparameters into a shell command without quotes (sagemaker-training-toolkit #128), so
    none may have a character that means something to a shell.
    """
    return ":".join([name, *(f"{key}={_encoded(value)}" for key, value in parameters.items())])


def _encoded(value: str) -> str:
    return quote(value, safe="").replace("~", "%7E")


def _parameters(name: str, rule: DebuggerRule, job: str) -> dict[str, str]:
    parameters = {**known_rules()[name]["parameters"], **rule.parameters}
    if rule.stop_training:
        # AWS reads the quotes with their backslashes
        parameters["action_json"] = (
            f'[{{\\"name\\": \\"stoptraining\\", \\"training_job_prefix\\": \\"{job}\\"}}]'
        )
    return parameters


def _hook(pipeline: Pipeline, output: str) -> DebugHookConfigTypeDef:
    """The hook saves what any of the rules reads.

    The rules' own collections carry a save interval of 500 steps, which would override the hook's; it is left
    out.
    """
    collections: dict[str, dict[str, str]] = {"losses": {}}
    for name in pipeline.rules:
        for collection, parameters in known_rules()[name]["collections"].items():
            wanted = {key: value for key, value in parameters.items() if not key.endswith("save_interval")}
            collections.setdefault(collection, {}).update(wanted)
    return {
        "S3OutputPath": output,
        "HookParameters": {
            "train.save_interval": str(pipeline.tensors.train_save_interval),
            "eval.save_interval": str(pipeline.tensors.eval_save_interval),
        },
        "CollectionConfigurations": [
            {"CollectionName": name, **({"CollectionParameters": wanted} if wanted else {})}
            for name, wanted in collections.items()
        ],
    }


def _profiler(profiler: Profiler, output: str) -> ProfilerConfigTypeDef:
    config: ProfilerConfigTypeDef = {
        "S3OutputPath": output,
        "DisableProfiler": False,
        "ProfilingIntervalInMilliseconds": profiler.system_interval_ms,
    }
    if profiler.framework_steps:
        config["ProfilingParameters"] = {
            name: value % profiler.framework_steps if "%d" in value else value
            for name, value in _PROFILING.items()
        }
    return config
