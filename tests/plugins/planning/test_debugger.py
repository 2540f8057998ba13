"""The Debugger parts of a training request: equal to the SDK's, and read by the script as they were meant."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import pytest
from retraining.config.pipeline import Pipeline
from retraining.planning.debugger import debugger_hyperparameters, known_rules, with_debugger
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

from tests.dags.airflow_home import REPOSITORY

REGION = "eu-west-1"
JOB = "dog-breed-2611220640-3fa9-1"
OUTPUT = "s3://bucket/output"


def request_for(pipeline: Pipeline, **changes: Any) -> Any:
    changed = Pipeline.model_validate({**pipeline.model_dump(), **changes})
    planned: Any = {"TrainingJobName": JOB, "OutputDataConfig": {"S3OutputPath": OUTPUT}}
    return with_debugger(planned, changed, REGION)


def sdk_rule(name: str, **arguments: Any) -> Rule:
    """A built-in rule of the SDK with its image and actions, as the SDK's estimator sends it."""
    factory = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    rule = Rule.sagemaker(getattr(rule_configs, factory)(), **arguments)
    rule.image_uri = get_rule_container_image_uri(name, REGION)
    rule.prepare_actions(JOB)
    return rule


@pytest.mark.parametrize("name", known_rules())
@pytest.mark.parametrize("parameters", [{}, {"threshold": "0.5", "tensor_regex": ".*relu$"}])
@pytest.mark.parametrize("stop_training", [False, True])
def test_rules_are_those_of_the_sdk(
    pipeline: Pipeline, name: str, parameters: Mapping[str, str], *, stop_training: bool
) -> None:
    planned = request_for(pipeline, rules={name: {"parameters": parameters, "stop_training": stop_training}})
    actions = rule_configs.ActionList(rule_configs.StopTraining()) if stop_training else None
    of_sdk = sdk_rule(name, rule_parameters=dict(parameters) or None, actions=actions)
    assert planned["DebugRuleConfigurations"] == [of_sdk.to_debugger_rule_config_dict()]


def test_the_hook_saves_what_the_rules_read_as_the_sdk_would_ask_for_it(pipeline: Pipeline) -> None:
    planned = request_for(
        pipeline,
        rules={name: {} for name in known_rules()},
        tensors={"train_save_interval": 7, "eval_save_interval": 3},
    )
    collections: dict[str, dict[str, str]] = {"losses": {}}
    for name in known_rules():
        for collection in sdk_rule(name).collection_configs:
            wanted = dict(collection.parameters or {})
            wanted.pop("save_interval", None)
            collections.setdefault(collection.name, {}).update(wanted)
    hook = DebuggerHookConfig(
        s3_output_path=OUTPUT,
        hook_parameters={"train.save_interval": "7", "eval.save_interval": "3"},
        collection_configs=[CollectionConfig(name, wanted or None) for name, wanted in collections.items()],
    )
    assert planned["DebugHookConfig"] == hook._to_request_dict()


@pytest.mark.parametrize("steps", [0, 1, 25])
def test_the_profiler_is_that_of_the_sdk(pipeline: Pipeline, steps: int) -> None:
    planned = request_for(pipeline, profiler={"system_interval_ms": 100, "framework_steps": steps})
    config = ProfilerConfig(
        s3_output_path=OUTPUT,
        system_monitor_interval_millis=100,
        framework_profile_params=FrameworkProfile(num_steps=steps) if steps else None,
    )
    report = ProfilerRule.sagemaker(rule_configs.ProfilerReport())
    report.image_uri = get_rule_container_image_uri(report.name, REGION)
    assert planned["ProfilerConfig"] == config._to_request_dict()
    assert planned["ProfilerRuleConfigurations"] == [report.to_profiler_rule_config_dict()]


def test_no_hyperparameter_means_anything_to_a_shell(pipeline: Pipeline) -> None:
    """AWS's images put them into a shell command without quotes."""
    changed = pipeline.model_copy(
        update={
            "debugger": "in_job",
            "rules": Pipeline.model_validate(
                {
                    **pipeline.model_dump(),
                    "rules": {
                        "Overfit": {"parameters": {"tensor_regex": "~.*a b$'\"`\\|;,:=&é", "patience": "5"}},
                        "AllZero": {"stop_training": True},
                    },
                }
            ).rules,
        }
    )
    sent = debugger_hyperparameters(changed)
    assert sent["debugger-rules"] == (
        "Overfit:tensor_regex=%7E.%2Aa%20b%24%27%22%60%5C%7C%3B%2C%3A%3D%26%C3%A9:patience=5,"
        "AllZero:stop_training_on_fire=true,ProfilerReport"
    )
    assert all(re.fullmatch(r"[A-Za-z0-9_.,:=%-]+", value) for value in sent.values())


def test_the_plan_knows_the_rules_of_the_script() -> None:
    source = (REPOSITORY / "sagemaker_code" / "debugger" / "rules" / "__init__.py").read_text()
    [modules] = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    ]
    assert modules.keys() == known_rules().keys()
