"""smdebug's hook configuration: what the rules need saved, at intervals that fit the length of the run.

The SageMaker SDK's rule configurations save every 500 steps; a run of 200 steps would show its rules step 0
only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_INTERVAL = 500
LOSSES = "losses"
INPUTS_OF_LOSS = {"include_regex": ".*[Ll]oss_input"}
INPUT_OF_MODEL = {"include_regex": "^[A-Z].*_input_0"}
COLLECTIONS: dict[str, dict[str, dict[str, str]]] = {
    "CheckInputImages": {"model_input": INPUT_OF_MODEL},
    "ClassImbalance": {"loss_input": INPUTS_OF_LOSS},
    "DeadRelu": {"relu_output": {"include_regex": ".*relu_output"}},
    "ExplodingTensor": {"gradients": {}},
    "PoorWeightInitialization": {"relu_input": {"include_regex": ".*relu_input"}, "gradients": {}},
    "VanishingGradient": {"gradients": {}},
    "WeightUpdateRatio": {"weights": {}},
}
"""Collections beyond the losses that a rule looks at."""

NEVER = "1000000000"
SMALL = {LOSSES, "loss_input"}
"""Collections that cost nothing to save, and whose rules need many values."""
LOSSES_AN_EPOCH, EVALUATIONS_A_PASS, SAVES_A_RUN = 5, 3, 5
"""What a run must at least save: losses in each epoch, validation losses in each pass, everything else in
all.
"""


@dataclass(frozen=True)
class RunLength:
    """How long a training run is, in steps."""

    steps_per_epoch: int
    epochs: int
    evaluation_steps: int


def for_rules(
    rules: Iterable[str], folder: Path, *, train_interval: int = 100, eval_interval: int = 10
) -> dict[str, Any]:
    """A hook configuration that saves what ``rules`` need into ``folder``: losses in both modes, the rest in
    training, because no rule looks at it elsewhere.
    """
    collections: dict[str, dict[str, str]] = {LOSSES: {}}
    for rule in rules:
        for name, parameters in COLLECTIONS.get(rule, {}).items():
            collections[name] = {**parameters, "eval.save_interval": NEVER, "predict.save_interval": NEVER}
    return {
        "LocalPath": str(folder),
        "HookParameters": {
            "train.save_interval": str(train_interval),
            "eval.save_interval": str(eval_interval),
        },
        "CollectionConfigurations": [
            {"CollectionName": name, "CollectionParameters": dict(parameters)}
            for name, parameters in collections.items()
        ],
    }


def fitted(configuration: Mapping[str, Any], run: RunLength) -> dict[str, Any]:
    """The configuration with intervals shortened, never lengthened, to what the run's length demands."""
    found: dict[str, Any] = copy.deepcopy(dict(configuration))
    often = max(1, run.steps_per_epoch // LOSSES_AN_EPOCH)
    rarely = max(1, run.steps_per_epoch * run.epochs // SAVES_A_RUN)
    evaluation = max(1, run.evaluation_steps // EVALUATIONS_A_PASS)
    whole = found.setdefault("HookParameters", {}) or {}
    collections = found.setdefault("CollectionConfigurations", []) or []
    for collection in collections:
        parameters = collection.setdefault("CollectionParameters", {})
        name = collection.get("CollectionName")
        _shorten(
            parameters, whole, often if name in SMALL else rarely, evaluation if name == LOSSES else None
        )
    if not any(one.get("CollectionName") == LOSSES for one in collections):
        losses: dict[str, str] = {}
        _shorten(losses, whole, often, evaluation)
        collections.append({"CollectionName": LOSSES, "CollectionParameters": losses})
    found["HookParameters"], found["CollectionConfigurations"] = whole, collections
    return found


def _shorten(
    parameters: dict[str, str], whole: Mapping[str, str], training: int, evaluation: int | None
) -> None:
    for mode, limit in (("train", training), ("eval", evaluation)):
        if limit is None:
            continue
        key = f"{mode}.save_interval"
        given = (
            parameters.get(key)
            or parameters.get("save_interval")
            or whole.get(key)
            or whole.get("save_interval")
            or DEFAULT_INTERVAL
        )
        parameters[key] = str(min(int(given), limit))


def write(configuration: Mapping[str, Any], path: Path) -> Path:
    """Write a configuration where smdebug can read it."""
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return path
