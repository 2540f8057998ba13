"""The Debugger and profiler parts of a training request, built with the SageMaker SDK.

The SDK takes seconds to import, so import this module inside a task only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from sagemaker.core.debugger import (
    CollectionConfig,
    DebuggerHookConfig,
    FrameworkProfile,
    ProfilerConfig,
    ProfilerRule,
    Rule,
    rule_configs,
)
from sagemaker.core.debugger.debugger import get_rule_container_image_uri

from retraining.config.hyperparameters import near_match
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Profiler, Tensors
from retraining.errors import PlanError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        CreateTrainingJobRequestTypeDef,
        DebugHookConfigTypeDef,
        ProfilerConfigTypeDef,
        ProfilerRuleConfigurationTypeDef,
    )

PROFILER_REPORT = "ProfilerReport"

# AWS's names; `sagemaker_code/debugger/rules` implements the same ones, and a test compares both lists.
RULES = {
    "AllZero": rule_configs.all_zero,
    "CheckInputImages": rule_configs.check_input_images,
    "ClassImbalance": rule_configs.class_imbalance,
    "DeadRelu": rule_configs.dead_relu,
    "ExplodingTensor": rule_configs.exploding_tensor,
    "LossNotDecreasing": rule_configs.loss_not_decreasing,
    "Overfit": rule_configs.overfit,
    "Overtraining": rule_configs.overtraining,
    "PoorWeightInitialization": rule_configs.poor_weight_initialization,
    "StalledTrainingRule": rule_configs.stalled_training_rule,
    "VanishingGradient": rule_configs.vanishing_gradient,
    "WeightUpdateRatio": rule_configs.weight_update_ratio,
}


def with_debugger(
    request: CreateTrainingJobRequestTypeDef, pipeline: Pipeline, region: str
) -> CreateTrainingJobRequestTypeDef:
    """The request with hook, rules and profiler, whose files go to the job's output path.

    Only mode `service` asks for any of them. Raises PlanError for a rule that does not exist, in every mode.
    """
    for name in pipeline.rules:
        if name not in RULES:
            raise PlanError(
                f"Pipeline {pipeline.name}: there is no Debugger rule {name!r}{near_match(name, RULES)}."
            )
    if pipeline.debugger != "service":
        return {**request, "ProfilerConfig": {"DisableProfiler": True}}
    output = request["OutputDataConfig"]["S3OutputPath"]
    rules = [_rule(name, pipeline, request["TrainingJobName"], region) for name in pipeline.rules]
    watched: CreateTrainingJobRequestTypeDef = {
        **request,
        "DebugHookConfig": _hook(pipeline.tensors, rules, output),
        "DebugRuleConfigurations": [rule.to_debugger_rule_config_dict() for rule in rules],
        "ProfilerConfig": _profiler(pipeline.profiler, output),
    }
    if pipeline.profiler.report:
        watched["ProfilerRuleConfigurations"] = [_profiler_report(region)]
    return watched


def debugger_hyperparameters(pipeline: Pipeline) -> dict[str, str]:
    """What the training script must know to evaluate the rules itself, or to leave Debugger out."""
    if pipeline.debugger == "service":
        return {}
    if pipeline.debugger == "off":
        return {"debugger": "off"}
    rules = [
        {
            "RuleConfigurationName": name,
            "RuleParameters": {
                "rule_to_invoke": name,
                **rule.parameters,
                **({"stop_training_on_fire": "true"} if rule.stop_training else {}),
            },
        }
        for name, rule in pipeline.rules.items()
    ]
    if pipeline.profiler.report:
        rules.append(
            {"RuleConfigurationName": PROFILER_REPORT, "RuleParameters": {"rule_to_invoke": PROFILER_REPORT}}
        )
    return {
        "debugger": "in_job",
        # JSON in JSON: AWS's toolkit decodes JSON once and passes structures on in a form of its own
        "debugger-rules": json.dumps(json.dumps(rules, separators=(",", ":"))),
        "debugger-sampling-ms": str(pipeline.profiler.system_interval_ms),
        "debugger-profile-steps": str(pipeline.profiler.framework_steps),
    }


def _rule(name: str, pipeline: Pipeline, job: str, region: str) -> Rule:
    settings = pipeline.rules[name]
    actions = rule_configs.ActionList(rule_configs.StopTraining()) if settings.stop_training else None
    rule = Rule.sagemaker(RULES[name](), rule_parameters=settings.parameters or None, actions=actions)
    rule.image_uri = get_rule_container_image_uri(name, region)
    rule.prepare_actions(job)
    return rule


def _hook(tensors: Tensors, rules: list[Rule], output: str) -> DebugHookConfigTypeDef:
    """The hook saves what any of the rules reads.

    The rules' own collections carry a save interval of 500 steps, which would override the hook's; it is left
    out.
    """
    collections: dict[str, dict[str, str]] = {"losses": {}}
    for rule in rules:
        for collection in rule.collection_configs:
            wanted = {
                k: v for k, v in (collection.parameters or {}).items() if not k.endswith("save_interval")
            }
            collections.setdefault(collection.name, {}).update(wanted)
    hook = DebuggerHookConfig(
        s3_output_path=output,
        hook_parameters={
            "train.save_interval": str(tensors.train_save_interval),
            "eval.save_interval": str(tensors.eval_save_interval),
        },
        collection_configs=[CollectionConfig(name, wanted or None) for name, wanted in collections.items()],
    )
    return cast("DebugHookConfigTypeDef", hook._to_request_dict())


def _profiler(profiler: Profiler, output: str) -> ProfilerConfigTypeDef:
    framework = FrameworkProfile(num_steps=profiler.framework_steps) if profiler.framework_steps else None
    config = ProfilerConfig(
        s3_output_path=output,
        system_monitor_interval_millis=profiler.system_interval_ms,
        framework_profile_params=framework,
    )
    return cast("ProfilerConfigTypeDef", config._to_request_dict())


def _profiler_report(region: str) -> ProfilerRuleConfigurationTypeDef:
    rule = ProfilerRule.sagemaker(rule_configs.ProfilerReport())
    rule.image_uri = get_rule_container_image_uri(rule.name, region)
    return cast("ProfilerRuleConfigurationTypeDef", rule.to_profiler_rule_config_dict())
