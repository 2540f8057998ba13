"""Entry point of a training job in a SageMaker container; `classifier/training.py` describes what it does."""

import logging
import os
import sys
import threading
from collections.abc import Sequence

import torch
from classifier import training
from classifier.arguments import base_dir, is_watched, parse_arguments
from classifier.errors import InputValueError
from classifier.precision import autocast_dtype
from debugger import monitor
from debugger.monitor import MonitorSettings

logger = logging.getLogger("train")


def main(argv: Sequence[str] | None = None) -> None:
    """Train under the job's debugger. Raises InputValueError for bad input."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    arguments = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = autocast_dtype(device, watched=is_watched(arguments)) or torch.float32
    logger.info("training on %s in %s with PyTorch %s", _device_name(device), precision, torch.__version__)
    stop = threading.Event()
    make_reproducible()
    settings = MonitorSettings(
        mode=arguments.debugger,
        output_data=arguments.output_data_dir,
        rules=arguments.debugger_rules,
        base_dir=base_dir(),
        profile_steps=arguments.debugger_profile_steps,
        sampling_ms=arguments.debugger_sampling_ms,
    )
    with monitor.beside(settings, on_stop=stop.set) as watch:
        training.train(training.prepare(arguments, device, stop, watch))


def make_reproducible() -> None:
    """Choose deterministic algorithms, so that a seed gives the same model on the same machine."""
    # cuBLAS is deterministic only with a workspace of fixed size
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} CPU threads, as there is no GPU,"


if __name__ == "__main__":
    try:
        main()
    except InputValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
