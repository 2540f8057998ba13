"""smdebug's hook configuration: the tensors that rules need, at intervals that fit the length of the run.

The SageMaker SDK's rule configurations save every 500 steps, so in a run of 200 steps rules would see step 0
only.
"""

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
"""Collections that a rule needs beyond the losses."""

NEVER = "1000000000"
TRAINING_ONLY = {"eval.save_interval": NEVER, "predict.save_interval": NEVER}
SMALL = {LOSSES, "loss_input"}
"""Collections that cost little to save, and whose rules need many values."""
LOSSES_AN_EPOCH, EVALUATIONS_A_PASS = 5, 3
SAVES_A_RUN = {"relu_input": 1, "relu_output": 3}
"""The fewest values to save: losses per epoch, validation losses per pass, other collections per run (by
default OTHER_SAVES_A_RUN). Activations are expensive: those of a ResNet50 on 32 images of 224 pixels take 2.8
GB. For PoorWeightInitialization the first step's are enough.
"""
OTHER_SAVES_A_RUN = 5


@dataclass(frozen=True)
class RunLength:
    """The length of a training run in steps."""

    steps_per_epoch: int
    epochs: int
    evaluation_steps: int


def for_rules(
    rules: Iterable[str], folder: Path, *, train_interval: int = 100, eval_interval: int = 10
) -> dict[str, Any]:
    """A hook configuration that saves what ``rules`` need to ``folder``.

    Losses are saved in both modes, everything else in training only, because no rule needs it in evaluation.
    """
    collections: dict[str, dict[str, str]] = {LOSSES: {}}
    for rule in rules:
        for name, parameters in COLLECTIONS.get(rule, {}).items():
            interval = {} if name in SMALL else {"train.save_interval": str(DEFAULT_INTERVAL)}
            collections[name] = {**parameters, **interval, **TRAINING_ONLY}
    if "relu_input" in collections:
        collections["relu_input"]["reductions"] = "variance"
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
    """The configuration with save intervals shortened to fit the run's length.

    No interval becomes longer, except that activations without their own evaluation interval are saved in
    training only.
    """
    found: dict[str, Any] = copy.deepcopy(dict(configuration))
    whole = found["HookParameters"] = found.get("HookParameters") or {}
    collections = found["CollectionConfigurations"] = found.get("CollectionConfigurations") or []
    if not any(one.get("CollectionName") == LOSSES for one in collections):
        collections.append({"CollectionName": LOSSES})
    for collection in collections:
        name = collection.get("CollectionName")
        parameters = collection["CollectionParameters"] = collection.get("CollectionParameters") or {}
        _shorten(parameters, whole, "train", _training_limit(name, run))
        if name == LOSSES:
            _shorten(parameters, whole, "eval", max(1, run.evaluation_steps // EVALUATIONS_A_PASS))
        elif name in SAVES_A_RUN and "eval.save_interval" not in parameters:
            parameters.update(TRAINING_ONLY)
    return found


def _training_limit(collection: str | None, run: RunLength) -> int:
    """The longest interval, in training steps, that still gives a collection's rules enough values."""
    if collection in SMALL:
        return max(1, run.steps_per_epoch // LOSSES_AN_EPOCH)
    saves = SAVES_A_RUN.get(collection or "", OTHER_SAVES_A_RUN)
    return max(1, run.steps_per_epoch * run.epochs // saves)


def _shorten(parameters: dict[str, str], whole: Mapping[str, str], mode: str, limit: int) -> None:
    key = f"{mode}.save_interval"
    candidates = [level.get(name) for level in (parameters, whole) for name in (key, "save_interval")]
    given = next((one for one in candidates if one), DEFAULT_INTERVAL)
    parameters[key] = str(min(int(given), limit))


def write(configuration: Mapping[str, Any], path: Path) -> Path:
    """Write a configuration as the JSON file that smdebug reads; returns ``path``."""
    path.write_text(json.dumps(configuration), encoding="utf-8")
    return path
