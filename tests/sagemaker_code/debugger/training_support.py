"""Small real trainings under smdebug's hook, each run to its end in a fraction of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smdebug.pytorch as smd
import torch
from debugger.evaluator import Evaluation, EvaluatorSettings
from debugger.statuses import StatusBoard
from smdebug.core.config_constants import CONFIG_FILE_PATH_ENV_STR
from torch import nn

SIZE, CLASSES = 8, 3
EVERYTHING = {
    "losses": {},
    "gradients": {},
    "weights": {},
    "relu_input": {"include_regex": ".*relu_input"},
    "relu_output": {"include_regex": ".*relu_output"},
    "loss_input": {"include_regex": ".*[Ll]oss_input"},
    "model_input": {"include_regex": "^[A-Z].*_input_0"},
}


class Net(nn.Module):
    """Two convolutions and a linear layer; its ReLUs are submodules named so, as torchvision's ResNets have
    them.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.relu = nn.ReLU()
        self.deeper = nn.Sequential()
        self.deeper.add_module("conv", nn.Conv2d(width, width, 3, padding=1))
        self.deeper.add_module("relu", nn.ReLU())
        self.head = nn.Linear(width, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of shape (N, CLASSES)."""
        scores: torch.Tensor = self.head(self.deeper(self.relu(self.conv(images))).mean((2, 3)))
        return scores


@dataclass
class Data:
    """Images and labels for training and validation."""

    train: tuple[torch.Tensor, torch.Tensor]
    valid: tuple[torch.Tensor, torch.Tensor]


def make_images(number: int, *, seed: int = 0, noise: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise around one colour a class, mean zero."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (number,), generator=generator)
    colours = 1.2 * (torch.eye(CLASSES) - 1 / CLASSES)
    images = colours[labels][:, :, None, None] + noise * torch.randn(
        number, 3, SIZE, SIZE, generator=generator
    )
    return images, labels


def healthy_data() -> Data:
    """Enough images that training generalises."""
    return Data(make_images(480, seed=1), make_images(240, seed=2))


@dataclass
class Run:
    """How to train; the default learns without a fault."""

    data: Data
    model: nn.Module | None = None
    epochs: int = 3
    batch: int = 16
    lr: float = 0.05
    momentum: float = 0.0
    validate: bool = True
    collections: dict[str, dict[str, str]] | None = None
    interval: int = 3
    change: Callable[[nn.Module], None] | None = None
    """Done to the model when it is built."""


def train(run: Run, folder: Path, monkeypatch: Any) -> Path:
    """Train with every tensor the rules want saved into ``folder``; returns it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    configuration = {
        "LocalPath": str(folder),
        "HookParameters": {"train.save_interval": str(run.interval), "eval.save_interval": "2"},
        "CollectionConfigurations": [
            {"CollectionName": name, "CollectionParameters": dict(parameters)}
            for name, parameters in (EVERYTHING if run.collections is None else run.collections).items()
        ],
    }
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(configuration))
    monkeypatch.setenv(CONFIG_FILE_PATH_ENV_STR, str(path))
    smd.del_hook()
    hook = smd.Hook.create_from_json_file(str(path))
    model = run.model or Net()
    if run.change:
        run.change(model)
    criterion = nn.CrossEntropyLoss()
    hook.register_module(model)
    hook.register_loss(criterion)
    optimizer = torch.optim.SGD(model.parameters(), lr=run.lr, momentum=run.momentum)
    for _ in range(run.epochs):
        _train_one_epoch(run, model, criterion, optimizer, hook)
        if run.validate:
            _validate(run, model, criterion, hook)
    hook.close()
    smd.del_hook()
    return folder


def _train_one_epoch(run: Run, model: nn.Module, criterion: nn.Module, optimizer: Any, hook: Any) -> None:
    hook.set_mode(smd.modes.TRAIN)
    model.train()
    images, labels = run.data.train
    order = torch.randperm(len(labels))
    for chosen in torch.split(order, run.batch):
        optimizer.zero_grad()
        criterion(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()


@torch.no_grad()
def _validate(run: Run, model: nn.Module, criterion: nn.Module, hook: Any) -> None:
    hook.set_mode(smd.modes.EVAL)
    model.eval()
    images, labels = run.data.valid
    for part in torch.split(torch.arange(len(labels)), run.batch):
        criterion(model(images[part]), labels[part])


def rule(name: str, **parameters: str) -> dict[str, Any]:
    """A DebugRuleConfiguration."""
    return {"RuleConfigurationName": name, "RuleParameters": {"rule_to_invoke": name, **parameters}}


def evaluate(
    tensors: Path | str, rules: list[dict[str, Any]], output: Path, **settings: Any
) -> dict[str, Any]:
    """Evaluate ``rules`` over a finished run; the status documents by name."""
    board = StatusBoard(output)
    given = {"poll": 0.05, "idle_timeout": 30.0, **settings}
    Evaluation(rules, EvaluatorSettings(str(tensors), **given), board).run()
    documents = [json.loads(path.read_text()) for path in output.glob("[!.]*.json")]
    return {document["RuleConfigurationName"]: document for document in documents}
