"""Which rule finds which defect: real runs of the training script, each with one defect or none.

Every scenario states in advance which rules must find an issue, and why; every other rule must find none.
Cells that cannot be predicted are stated too, shown, and not counted. Run it in the training environment::

    PYTHONPATH=sagemaker_code python benchmarks/rules_matrix.py [--only NAME ...] [--keep FOLDER]

It prints the table and ends with ``N cells, M wrong``; the exit status is 0 if none is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from debugger import hook_config
from debugger.hook_config import RunLength
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "sagemaker_code"
CLASSES, SIDE = 6, 32
RULES: dict[str, dict[str, str]] = {
    "VanishingGradient": {},
    "ExplodingTensor": {},
    "LossNotDecreasing": {},
    "Overfit": {},
    "Overtraining": {},
    "PoorWeightInitialization": {},
    "DeadRelu": {},
    "AllZero": {},
    "WeightUpdateRatio": {},
    "ClassImbalance": {"samples": "100"},
    "CheckInputImages": {"threshold_samples": "30"},
    "StalledTrainingRule": {},
}
"""Rules and the parameters that differ from AWS's defaults: these runs see fewer than 500 images."""
SHORT = {
    "VanishingGradient": "Vanish",
    "ExplodingTensor": "Explode",
    "LossNotDecreasing": "LossND",
    "Overfit": "Overfit",
    "Overtraining": "Overtr",
    "PoorWeightInitialization": "PoorInit",
    "DeadRelu": "DeadRelu",
    "AllZero": "AllZero",
    "WeightUpdateRatio": "WeightUR",
    "ClassImbalance": "Imbal",
    "CheckInputImages": "Images",
    "StalledTrainingRule": "Stalled",
}
FOUND, NONE, INSUFFICIENT = "IssuesFound", "NoIssuesFound", "InsufficientData"
MARKS = {FOUND: "FOUND", NONE: ".", INSUFFICIENT: "no data", "Error": "ERROR", "Stopped": "stopped"}


@dataclass(frozen=True)
class Images:
    """A synthetic dataset: a colour and a direction of stripes per class, with noise."""

    train: tuple[int, ...] = (48,) * CLASSES
    valid: tuple[int, ...] = (20,) * CLASSES
    noise: float = 0.12
    contrast: float = 0.16
    brightness: float | None = None
    shuffled: bool = False


@dataclass(frozen=True)
class Scenario:
    """One run, with a reason for each rule that must fire (``found``), that must have insufficient data
    (``insufficient``), or whose outcome cannot be predicted (``open``).
    """

    name: str
    images: Images = field(default_factory=Images)
    arguments: tuple[str, ...] = ()
    epochs: int = 6
    batch: int = 16
    arch: str = "resnet18"
    weights: Callable[[], dict[str, torch.Tensor]] | None = None
    found: dict[str, str] = field(default_factory=dict)
    insufficient: dict[str, str] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, dict[str, str]] = field(default_factory=dict)
    stall_seconds: float = 0.0

    def expected(self, rule: str) -> str | None:
        """The outcome that a rule must have; None if it cannot be predicted."""
        if rule in self.open:
            return None
        return FOUND if rule in self.found else INSUFFICIENT if rule in self.insufficient else NONE


def all_weights(arch: str) -> dict[str, torch.Tensor]:
    """A fresh state of an architecture."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = torchvision.models.get_model(arch, weights=None).state_dict()
    return state


def shrunk() -> dict[str, torch.Tensor]:
    """Eighteen convolutions without normalisation, all weights scaled to a tenth."""
    return {name: value * 0.1 for name, value in all_weights("squeezenet1_1").items()}


def silent() -> dict[str, torch.Tensor]:
    """Every normalisation scales by zero, so no layer passes a signal."""
    state = all_weights("resnet18")
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return {**state, **{f"{norm}weight": torch.zeros_like(state[f"{norm}weight"]) for norm in norms}}


def mostly_dead() -> dict[str, torch.Tensor]:
    """In one block, 80 % of the features are pushed far below zero."""
    state = all_weights("resnet18")
    bias = state["layer2.0.bn1.bias"].clone()
    bias[: int(0.8 * len(bias))] = -12.0
    return {**state, "layer2.0.bn1.bias": bias}


SCENARIOS = [
    Scenario("healthy"),
    Scenario("healthy, lr 0.01", arguments=("--lr", "0.01"), epochs=8),
    Scenario("healthy, no momentum", arguments=("--momentum", "0", "--lr", "0.1")),
    Scenario(
        "healthy, larger batch",
        images=Images(train=(96,) * CLASSES),
        arguments=("--lr", "0.08"),
        batch=32,
        epochs=5,
    ),
    Scenario(
        "lr far too high",
        arguments=("--lr", "10", "--momentum", "0.99"),
        found={"LossNotDecreasing": "updates overshoot, so the loss jumps about or rises"},
        open={
            "Overfit": "running statistics lag behind the weights, which may cost validation more",
            "WeightUpdateRatio": "gradients are clipped, so the ratio depends on the layer",
            "DeadRelu": "large biases may kill channels, or not",
            "PoorWeightInitialization": "the loss stands still from the start; variances may differ",
            "VanishingGradient": "weights grow, and with normalisation gradients shrink with them",
            "ExplodingTensor": "the script clips gradients",
            "AllZero": "where channels die, a whole layer may",
        },
    ),
    Scenario(
        "lr far too low",
        arguments=("--lr", "1e-6"),
        found={"LossNotDecreasing": "next to nothing is learned"},
        open={"WeightUpdateRatio": "updates are about as small as a float's resolution of the weights"},
    ),
    Scenario(
        "vanishing gradients",
        arch="squeezenet1_1",
        weights=shrunk,
        found={
            "VanishingGradient": "each of 18 layers shrinks the gradient tenfold",
            "LossNotDecreasing": "only the last layer's bias learns, and balanced classes need none",
            "PoorWeightInitialization": "gradients lie within 0.001 and the loss stands still",
        },
        insufficient={"DeadRelu": "SqueezeNet's ReLUs are not named relu, so no .*relu_output is saved"},
        open={
            "AllZero": "activations and gradients may underflow to zero",
            "WeightUpdateRatio": "weight decay moves weights that gradients do not",
        },
    ),
    Scenario(
        "tiny dataset trained long",
        images=Images(train=(4,) * CLASSES, noise=0.3, contrast=0.04),
        arguments=("--lr", "0.02"),
        epochs=16,
        batch=8,
        found={"Overfit": "24 images without much pattern are memorised"},
        open={
            "Overtraining": "the training loss may have reached its floor for five epochs",
            "LossNotDecreasing": "same",
        },
    ),
    Scenario(
        "long past the best epoch",
        images=Images(train=(4,) * CLASSES, noise=0.3, contrast=0.04),
        arguments=("--lr", "0.05"),
        epochs=50,
        batch=8,
        found={
            "Overtraining": "after 50 epochs on 24 images nothing has improved for far more than five",
            "Overfit": "the same training is overfit long before",
        },
        open={
            "LossNotDecreasing": "at its floor the loss only jitters",
            "VanishingGradient": "where the loss is near zero, so are the gradients",
        },
    ),
    Scenario(
        "bad initialisation",
        weights=silent,
        found={
            "PoorWeightInitialization": "variances of ReLU inputs are zero and the loss stands still",
            "LossNotDecreasing": "no feature reaches the head",
            "VanishingGradient": "zero scales pass no gradient",
            "DeadRelu": "every ReLU sees zero",
            "AllZero": "every ReLU puts out zero",
        },
    ),
    Scenario(
        "dead ReLUs",
        weights=mostly_dead,
        found={"DeadRelu": "80 % of the channels of layer2.0 lie twelve deviations below zero"},
    ),
    Scenario(
        "inputs not normalised",
        images=Images(brightness=0.85, contrast=0.08, noise=0.1),
        found={"CheckInputImages": "almost white images lie 1.6 deviations above ImageNet's mean"},
        open={"Overfit": "running statistics of the large offset lag behind, which costs validation alone"},
    ),
    Scenario(
        "imbalanced classes",
        images=Images(train=(220, 14, 14, 14, 14, 14), valid=(80, 8, 8, 8, 8, 8), contrast=0.1),
        found={"ClassImbalance": "the largest class has 16 times the images of the smallest"},
    ),
    Scenario(
        "labels shuffled",
        images=Images(shuffled=True),
        epochs=4,
        found={"LossNotDecreasing": "labels do not depend on the images, so the loss stays at ln 6"},
        open={"Overfit": "validation on chance labels may cost 10 % more than training"},
    ),
    Scenario(
        "a stall",
        stall_seconds=14.0,
        parameters={"StalledTrainingRule": {"threshold": "7"}},
        found={"StalledTrainingRule": "the process stands still for 14 s, twice the threshold"},
    ),
]


def draw(images: Images, folder: Path) -> None:
    """Write the dataset as class folders of PNG files."""
    generator = np.random.default_rng(0)
    colours = generator.normal(size=(CLASSES, 3))
    colours = (colours - colours.mean(0)) / np.abs(colours).max()
    base = np.array([0.485, 0.456, 0.406]) if images.brightness is None else np.full(3, images.brightness)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    for channel, counts in (("train", images.train), ("valid", images.valid), ("test", (4,) * CLASSES)):
        for label in range(CLASSES):
            (folder / channel / f"{label:03d}.class").mkdir(parents=True)
        for label, number in enumerate(counts):
            angle = np.pi * label / CLASSES
            stripes = np.sin(0.9 * (np.cos(angle) * columns + np.sin(angle) * rows))[:, :, None]
            for index in range(number):
                noise = generator.normal(scale=images.noise, size=(SIDE, SIDE, 3))
                pixels = base + images.contrast * (colours[label] + 0.6 * stripes) + noise
                shown = int(generator.integers(CLASSES)) if images.shuffled else label
                path = folder / channel / f"{shown:03d}.class" / f"{label}_{index}.png"
                Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(path)


def prepare(scenario: Scenario, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Data, weights and hook configuration of a scenario; the training command and its environment."""
    draw(scenario.images, folder / "data")
    command = [sys.executable, str(CODE / "train.py"), "--arch", scenario.arch, "--trainable", "all"]
    command += ["--image-size", str(2 * SIDE if scenario.arch.startswith("squeeze") else SIDE)]
    command += ["--epochs", str(scenario.epochs), "--batch-size", str(scenario.batch), "--num-workers", "0"]
    command += [
        part for name in ("train", "valid", "test") for part in (f"--{name}", str(folder / "data" / name))
    ]
    command += ["--model-dir", str(folder / "model"), "--output-data-dir", str(folder / "output")]
    command += ["--label-smoothing", "0", *scenario.arguments]
    if scenario.weights is not None:
        (folder / "pretrained").mkdir()
        torch.save(scenario.weights(), folder / "pretrained" / "weights.pth")
        command += ["--pretrained", str(folder / "pretrained")]
    steps = -(-sum(scenario.images.train) // scenario.batch)
    evaluation = -(-sum(scenario.images.valid) // scenario.batch)
    configuration = hook_config.for_rules(RULES, folder / "tensors")
    configuration = hook_config.fitted(configuration, RunLength(steps, scenario.epochs, evaluation))
    path = hook_config.write(configuration, folder / "debughookconfig.json")
    environment = {
        **os.environ,
        "PYTHONPATH": str(CODE),
        "SAGEMAKER_BASE_DIR": str(folder),
        "SMDEBUG_CONFIG_FILE_PATH": str(path),
        "SMDEBUG_LOG_LEVEL": "error",
        "OMP_NUM_THREADS": "1",
    }
    return command, environment


def run(scenario: Scenario, folder: Path) -> dict[str, dict[str, Any]]:
    """Train with the evaluator beside it; returns the status documents by rule."""
    command, environment = prepare(scenario, folder)
    rules = [
        {
            "RuleConfigurationName": name,
            "RuleParameters": {"rule_to_invoke": name, **parameters, **scenario.parameters.get(name, {})},
        }
        for name, parameters in RULES.items()
    ]
    (folder / "rules.json").write_text(json.dumps(rules), encoding="utf-8")
    ended = folder / "ended"
    evaluate = [sys.executable, "-m", "debugger", "evaluate", "--rules", str(folder / "rules.json")]
    evaluate += ["--tensors", str(folder / "tensors"), "--output", str(folder / "statuses")]
    evaluate += ["--job", "matrix", "--ended-file", str(ended), "--poll", "0.5"]
    with (folder / "train.log").open("w") as log, (folder / "rules.log").open("w") as rule_log:
        training = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=CODE)
        evaluator = subprocess.Popen(evaluate, env=environment, stdout=rule_log, stderr=subprocess.STDOUT)
        if scenario.stall_seconds:
            stall(training, folder, scenario.stall_seconds)
        training.wait()
        ended.touch()
        evaluator.wait(120)
    return {one.stem: json.loads(one.read_text()) for one in (folder / "statuses").glob("[!.]*.json")}


def stall(training: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    """Stop the process for ``seconds`` once it has saved some steps."""
    while training.poll() is None and len(list((folder / "tensors" / "index").glob("*/*.json"))) < 8:
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        training.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        training.send_signal(signal.SIGCONT)


def outcome(status: dict[str, Any] | None) -> str:
    """A status document's outcome."""
    return "missing" if status is None else str(status["Outcome"])


def main() -> int:
    """Run the scenarios one by one and print the expected and the actual outcomes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="names of the scenarios to run")
    parser.add_argument("--keep", type=Path, help="folder that keeps logs, tensors and statuses")
    options = parser.parse_args()
    chosen = [one for one in SCENARIOS if not options.only or one.name in options.only]
    cells = 0
    wrong: list[str] = []
    print(f"{'scenario':<28}" + "".join(f"{SHORT[rule]:>10}" for rule in RULES) + "   seconds", flush=True)
    with tempfile.TemporaryDirectory(prefix="rules-matrix-") as temporary:
        for number, scenario in enumerate(chosen):
            folder = (options.keep or Path(temporary)) / f"{number:02d}"
            folder.mkdir(parents=True)
            started = time.monotonic()
            statuses = run(scenario, folder)
            if options.keep is None:
                shutil.rmtree(folder)
            row = f"{scenario.name:<28}"
            for rule in RULES:
                expected, got = scenario.expected(rule), outcome(statuses.get(rule))
                mark = MARKS.get(got, got)
                if expected is None:
                    mark = f"({mark})"
                else:
                    cells += 1
                    if got != expected:
                        mark += "!"
                        details = (statuses.get(rule) or {}).get("StatusDetails", "no status")
                        wrong.append(f"{scenario.name} x {rule}: expected {expected}, found {got}: {details}")
                row += f"{mark:>10}"
            print(f"{row}{time.monotonic() - started:>10.0f}", flush=True)
    print("(brackets): not predicted, not counted; !: not as expected")
    for line in wrong:
        print(f"wrong: {line}")
    for scenario in chosen:
        for rule, reason in {**scenario.found, **scenario.insufficient}.items():
            print(f"reason: {scenario.name} x {rule}: {reason}")
    print(f"{cells} cells, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
