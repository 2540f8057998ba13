"""The Debugger and profiler parts of a training request, built with the SageMaker SDK.

The SDK takes seconds to import, so import this module inside a task only.
"""

from __future__ import annotations

import json
from typing import Any

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

Request = dict[str, Any]

_FACTORIES = {
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


def debugger_request(pipeline: Pipeline, job: str, region: str, output: str) -> Request:
    """The members that Debugger adds to the request of training job `job`; its files go under `output`.

    Only mode `service` asks anything of the platform. Raises PlanError for a rule that does not exist.
    """
    if pipeline.debugger != "service":
        return {"ProfilerConfig": {"DisableProfiler": True}}
    rules = [_rule(name, pipeline, job, region) for name in pipeline.rules]
    return {
        "DebugHookConfig": _hook(pipeline.tensors, rules, output),
        "DebugRuleConfigurations": [rule.to_debugger_rule_config_dict() for rule in rules],
        "ProfilerConfig": _profiler(pipeline.profiler, output),
        **_profiler_rules(pipeline.profiler, region),
    }


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
            {
                "RuleConfigurationName": "ProfilerReport",
                "RuleParameters": {"rule_to_invoke": "ProfilerReport"},
            }
        )
    return {
        "debugger": "in_job",
        # AWS's toolkit decodes JSON once, and passes structures on in a form of its own: hence JSON in JSON
        "debugger-rules": json.dumps(json.dumps(rules, separators=(",", ":"))),
        "debugger-sampling-ms": str(pipeline.profiler.system_interval_ms),
        "debugger-profile-steps": str(pipeline.profiler.framework_steps),
    }


def _rule(name: str, pipeline: Pipeline, job: str, region: str) -> Rule:
    factory = _FACTORIES.get(name)
    if factory is None:
        raise PlanError(
            f"Pipeline {pipeline.name}: there is no Debugger rule {name!r}{near_match(name, _FACTORIES)}."
        )
    settings = pipeline.rules[name]
    actions = rule_configs.ActionList(rule_configs.StopTraining()) if settings.stop_training else None
    rule = Rule.sagemaker(factory(), rule_parameters=settings.parameters or None, actions=actions)
    rule.image_uri = get_rule_container_image_uri(name, region)
    rule.prepare_actions(job)
    return rule


def _hook(tensors: Tensors, rules: list[Rule], output: str) -> Request:
    """The hook saves what any rule looks at.

    The rules' own collections carry a save interval of 500 steps, which would overrule the hook's; it is left
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
    request: Request = hook._to_request_dict()
    return request


def _profiler(profiler: Profiler, output: str) -> Request:
    framework = FrameworkProfile(num_steps=profiler.framework_steps) if profiler.framework_steps else None
    config = ProfilerConfig(
        s3_output_path=output,
        system_monitor_interval_millis=profiler.system_interval_ms,
        framework_profile_params=framework,
    )
    request: Request = config._to_request_dict()
    return request


def _profiler_rules(profiler: Profiler, region: str) -> Request:
    if not profiler.report:
        return {}
    rule = ProfilerRule.sagemaker(rule_configs.ProfilerReport())
    rule.image_uri = get_rule_container_image_uri(rule.name, region)
    return {"ProfilerRuleConfigurations": [rule.to_profiler_rule_config_dict()]}
