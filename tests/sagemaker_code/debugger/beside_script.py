"""A training script with its rules beside it, started by test_monitor as a process of its own.

Arguments: output folder, learning rate, epochs, names of rules that may stop it. The last line tells how it
ended.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import debugger  # noqa: F401  (makes smdebug importable)
import smdebug.pytorch as smd
import torch
from debugger import monitor
from debugger.configurations import rule_configuration
from debugger.hook_config import RunLength
from torch import nn

from tests.sagemaker_code.debugger.training_support import Net, healthy_data


def main(output: Path, lr: float, epochs: int, stop_rules: list[str]) -> None:
    """Train until the last epoch or until a rule asks to stop."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = healthy_data()
    stop = threading.Event()
    names = ["ExplodingTensor", "VanishingGradient", "Overfit", "NoSuchRule", "ProfilerReport"]
    settings = monitor.MonitorSettings(
        monitor.IN_JOB,
        output,
        [rule_configuration(name) for name in names],
        stop_rules,
        sampling_ms=100,
    )
    with monitor.beside(settings, stop.set) as watch:
        configuration = watch.hook_configuration(RunLength(30, epochs, 15))
        hook = smd.Hook.create_from_json_file(str(configuration))
        model, criterion = Net(), nn.CrossEntropyLoss()
        hook.register_module(model)
        hook.register_loss(criterion)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        images, labels = data.train
        epoch = 0
        while epoch < epochs and not stop.is_set():
            hook.set_mode(smd.modes.TRAIN)
            for chosen in watch.steps.batches(torch.split(torch.randperm(len(labels)), 16), "TRAIN"):
                with watch.steps.step("TRAIN"):
                    optimizer.zero_grad()
                    criterion(model(images[chosen]), labels[chosen]).backward()
                    optimizer.step()
                if stop_rules and stop.wait(0.02):
                    break
            hook.set_mode(smd.modes.EVAL)
            with torch.no_grad():
                for part in torch.split(torch.arange(len(data.valid[1])), 16):
                    criterion(model(data.valid[0][part]), data.valid[1][part])
            epoch += 1
    print(f"trained {epoch} epochs, stopped={stop.is_set()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
