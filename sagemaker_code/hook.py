"""SageMaker Debugger's hook, where the job asks for one and smdebug is installed."""

import enum
import logging
import os
from pathlib import Path
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    """The step modes that Debugger's save intervals and rules tell apart."""

    TRAIN = "TRAIN"
    EVAL = "EVAL"
    TEST = "PREDICT"


class TensorHook:
    """Saves the tensors of a model and its loss as the job's debugger configuration says."""

    def __init__(self, hook: Any, modes: Any) -> None:
        self._hook = hook
        self._modes = modes

    def enter(self, phase: Phase) -> None:
        """Count the steps that follow as training or evaluation steps."""
        self._hook.set_mode(self._modes[phase.value])


def open_hook(configuration: Path | None, model: nn.Module, criterion: nn.Module) -> TensorHook | None:
    """Register model and loss with smdebug; None, with the reason in the log, if no tensors will be saved.

    smdebug is imported here only: a job without a debugger should not pay for the import. Whatever it raises
    while it is set up must not cost the training job.
    """
    if configuration is None:
        logger.info("no tensors are saved: the job has no debugger configuration")
        return None
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "warning")  # it logs a line for every parameter otherwise
    try:
        import smdebug.pytorch as smd  # noqa: PLC0415

        hook = smd.get_hook(json_config_path=str(configuration), create_if_not_exists=True)
        if hook is None:
            logger.warning(
                "no tensors are saved: smdebug made no hook from %s; its reason is above", configuration
            )
            return None
        hook.register_module(model)
        hook.register_loss(criterion)
    except ImportError as error:
        logger.warning("no tensors are saved: smdebug cannot be imported (%s); see requirements.txt", error)
        return None
    except Exception as error:  # noqa: BLE001 - a third party's hook decides what it raises
        logger.warning("no tensors are saved: smdebug's hook failed (%s: %s)", type(error).__name__, error)
        return None
    logger.info("tensors are saved to %s as %s says", hook.out_dir, configuration)
    return TensorHook(hook, smd.modes)
