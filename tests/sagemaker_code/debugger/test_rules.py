"""Each debugger rule on a training with its defect, and all of them on a healthy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from debugger.hook_config import COLLECTIONS
from debugger.rules import MODULES
from debugger.rules.base import matches
from torch import nn

from tests.sagemaker_code.debugger.training_support import (
    CLASSES,
    Data,
    Net,
    Run,
    evaluate,
    healthy_data,
    make_images,
    rule,
    train,
)

SMALL = {"ClassImbalance": {"samples": "100"}, "CheckInputImages": {"threshold_samples": "100"}}


def configured(name: str, **parameters: str) -> dict[str, Any]:
    """A rule with the sample counts that fit these small runs."""
    return rule(name, **{**SMALL.get(name, {}), **parameters})


def test_a_healthy_training_has_no_issue_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = train(Run(healthy_data()), tmp_path / "tensors", monkeypatch)
    statuses = evaluate(tensors, [configured(name) for name in MODULES], tmp_path / "statuses")
    outcomes = {name: (one["Outcome"], one["StatusDetails"]) for name, one in statuses.items()}
    assert set(outcomes) == set(MODULES)
    assert {name: text for name, text in outcomes.items() if text[0] != "NoIssuesFound"} == {}


def deep_sigmoids() -> nn.Module:
    """Twelve sigmoid layers, which let no gradient through."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(3 * 8 * 8, 16)]
    for _ in range(12):
        layers += [nn.Sigmoid(), nn.Linear(16, 16)]
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(16, CLASSES))


def one_constant(model: nn.Module) -> None:
    """Initialise all weights alike and wide apart between the layers."""
    for number, parameter in enumerate(model.parameters()):
        nn.init.constant_(parameter, 1e-4 if number < 2 else 1e-3)


def dead_from_the_first_step(model: nn.Module) -> None:
    """Push the first layer's ReLUs below zero for every input."""
    nn.init.constant_(model.get_parameter("conv.bias"), -50.0)


def shuffled(data: Data) -> Data:
    """The same images with labels that tell nothing of them."""
    generator = torch.Generator().manual_seed(3)
    return Data(
        *(
            (images, labels[torch.randperm(len(labels), generator=generator)])
            for images, labels in (data.train, data.valid)
        )
    )


def brighter(data: Data) -> Data:
    """The same images as if they were never normalised."""
    return Data((data.train[0] + 0.9, data.train[1]), (data.valid[0] + 0.9, data.valid[1]))


def imbalanced() -> Data:
    """One class almost alone."""
    images, labels = make_images(900, seed=1)
    keep = (labels == 0) | (torch.arange(len(labels)) % 25 == 0)
    return Data((images[keep], labels[keep]), make_images(120, seed=2))


def tiny() -> Data:
    """A handful of images without a pattern, to be memorised."""
    images, labels = make_images(24, seed=1, noise=3.0)
    return Data((images, labels), make_images(160, seed=2, noise=3.0))


torch.manual_seed(0)  # the models below are initialised when this module is imported
DEFECTS: list[tuple[str, str, Run, dict[str, str]]] = [
    ("VanishingGradient", "mean absolute gradient", Run(healthy_data(), deep_sigmoids(), epochs=1), {}),
    ("ExplodingTensor", "NaN and", Run(healthy_data(), lr=1e6, epochs=2), {}),
    ("LossNotDecreasing", "the loss", Run(healthy_data(), lr=1e-7), {}),
    ("LossNotDecreasing", "the loss", Run(shuffled(healthy_data()), epochs=4), {}),
    ("Overfit", "the validation loss", Run(tiny(), Net(32), epochs=25, lr=0.5, batch=8, interval=1), {}),
    ("Overtraining", "has not improved", Run(tiny(), Net(32), epochs=60, lr=0.5, batch=8, interval=1), {}),
    (
        "PoorWeightInitialization",
        "the loss does not fall",
        Run(healthy_data(), change=one_constant, lr=1e-3),
        {},
    ),
    ("DeadRelu", "are dead", Run(healthy_data(), change=dead_from_the_first_step), {}),
    (
        "AllZero",
        "are zero",
        Run(healthy_data(), change=dead_from_the_first_step),
        {"tensor_regex": ".*relu_output"},
    ),
    ("WeightUpdateRatio", "above the threshold", Run(healthy_data(), lr=2e3), {}),
    ("WeightUpdateRatio", "below the threshold", Run(healthy_data(), lr=1e-12), {}),
    ("ClassImbalance", "the ratio", Run(imbalanced()), {}),
    ("CheckInputImages", "farther from zero", Run(brighter(healthy_data())), {}),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=[f"{one[0]}-{index}" for index, one in enumerate(DEFECTS)])
def test_a_defect_is_found(
    defect: tuple[str, str, Run, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text, run, parameters = defect
    run.collections = {"losses": {}, **COLLECTIONS.get(name, {})}
    if "tensor_regex" in parameters:
        run.collections["named"] = {"include_regex": parameters["tensor_regex"]}
    tensors = train(run, tmp_path / "tensors", monkeypatch)
    status = evaluate(tensors, [configured(name, **parameters)], tmp_path / "statuses")[name]
    assert status["RuleEvaluationStatus"] == "IssuesFound", status["StatusDetails"]
    assert status["StatusDetails"].startswith(
        f"RuleEvaluationConditionMet: Evaluation of the rule {name} at step {status['Step']} resulted in the "
        "condition "
        "being met\n"
    )
    assert text in status["Finding"]
    assert any(character.isdigit() for character in status["Finding"])
    assert status["Advice"]
    assert len(status["StatusDetails"]) <= 1024


def test_patterns_match_anywhere_in_a_name_as_smdebug_s_do() -> None:
    """smdebug may describe the collection of losses by its pattern alone, without names."""
    assert matches("CrossEntropyLoss_output_0", ["[Ll]oss_(?!input).*output"])
    assert not matches("CrossEntropyLoss_input_0", ["[Ll]oss_(?!input).*output"])
