"""The cost of saving tensors for the rules: two copies of a model train in turns, one of them with the hook.

The copies take turns in blocks of steps, so that other load slows both equally. Run it in the training
environment::

    PYTHONPATH=sagemaker_code python benchmarks/hook_overhead.py [--size 224] [--batch 8] [--steps 100]

The last line is ``hook: +X % of the training time``, saving included, at the pipeline's default intervals.
The first step saves everything, so a short measurement overstates the cost of a whole run.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from debugger import hook_config
from debugger.hook_config import RunLength
from torch import nn

RULES = ("VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization")
BLOCK = 5


def make_hook(model: nn.Module, criterion: nn.Module, folder: Path) -> Any:
    """smdebug's hook as for a job on dogImages: 6,680 images in batches of 32, ten epochs."""
    configuration = hook_config.fitted(
        hook_config.for_rules(RULES, folder / "tensors"), RunLength(209, 10, 27)
    )
    path = hook_config.write(configuration, folder / "debughookconfig.json")
    os.environ["SMDEBUG_CONFIG_FILE_PATH"] = str(path)
    print(f"hook: {json.dumps(configuration['CollectionConfigurations'])}")
    import smdebug.pytorch as smd

    hook = smd.Hook.create_from_json_file(str(path))
    hook.register_module(model)
    hook.register_loss(criterion)
    hook.set_mode(smd.modes.TRAIN)
    return hook


def train(model: nn.Module, criterion: nn.Module, optimizer: Any, data: list[Any], steps: int) -> float:
    """Seconds that ``steps`` steps take."""
    started = time.perf_counter()
    for number in range(steps):
        images, labels = data[number % len(data)]
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - started


def main() -> int:
    """Train both copies and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")
    torch.manual_seed(0)
    data = [
        (torch.randn(options.batch, 3, options.size, options.size), torch.randint(0, 10, (options.batch,)))
        for _ in range(2)
    ]
    plain = torchvision.models.get_model(options.arch, weights=None, num_classes=10)
    hooked = copy.deepcopy(plain)
    criteria = nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    models = plain, hooked
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in models]
    seconds = [0.0, 0.0]
    with tempfile.TemporaryDirectory(prefix="hook-overhead-") as folder:
        train(plain, criteria[0], optimizers[0], data, 1)
        hook = make_hook(hooked, criteria[1], Path(folder))
        for _ in range(0, options.steps, BLOCK):
            for index in (0, 1):
                seconds[index] += train(models[index], criteria[index], optimizers[index], data, BLOCK)
        started = time.perf_counter()
        hook.close()
        seconds[1] += time.perf_counter() - started
        saved = sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
    print(f"{options.arch}, {options.size} px, batch {options.batch}, {options.steps} steps each")
    print(f"plain {seconds[0]:.1f} s, with the hook {seconds[1]:.1f} s, saved {saved / 1e6:.0f} MB")
    print(f"hook: {100 * (seconds[1] / seconds[0] - 1):+.1f} % of the training time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
