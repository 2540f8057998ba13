"""SageMaker Debugger's hook in the training script, if the job has one and smdebug is installed."""

import enum
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    """The step modes that Debugger's save intervals and rules distinguish."""

    TRAIN = "TRAIN"
    EVAL = "EVAL"
    TEST = "PREDICT"


class TensorHook:
    """Saves the tensors of a model and its loss as the job's debugger configuration says."""

    def __init__(self, hook: Any, modes: Any) -> None:
        self._hook = hook
        self._modes = modes

    def enter(self, phase: Phase) -> None:
        """Count the following steps as steps of this phase."""
        self._hook.set_mode(self._modes[phase.value])


def open_hook(configuration: Path | None, model: "nn.Module", criterion: "nn.Module") -> TensorHook | None:
    """Register model and loss with smdebug; None, with the reason in the log, if no tensors will be saved.

    smdebug is imported here, so that jobs without a debugger do not pay for the import. No error that it
    raises during its setup ends the training.
    """
    if configuration is None:
        logger.info("no tensors are saved: the job has no debugger configuration")
        return None
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "warning")  # otherwise it logs a line for every parameter
    try:
        import smdebug.pytorch as smd  # noqa: PLC0415

        hook = smd.get_hook(json_config_path=str(configuration), create_if_not_exists=True)
        if hook is None:
            logger.warning(
                "no tensors are saved: smdebug made no hook from %s; its reason is above", configuration
            )
            return None
        _accept_bfloat16(hook)
        hook.register_module(model)
        hook.register_loss(criterion)
    except ImportError as error:
        logger.warning(
            "no tensors are saved: smdebug cannot be imported (%s); see debugger/library.py", error
        )
        return None
    except Exception as error:  # noqa: BLE001 - a third party's hook decides what it raises
        logger.warning("no tensors are saved: smdebug's hook failed (%s: %s)", type(error).__name__, error)
        return None
    logger.info("tensors are saved to %s as %s says", hook.out_dir, configuration)
    return TensorHook(hook, smd.modes)


def _accept_bfloat16(hook: Any) -> None:
    """Convert bfloat16 activations to float32 before smdebug passes them to NumPy, which has no such type."""
    import torch  # noqa: PLC0415 - this module is also imported where no tensors are handled

    to_array = hook._make_numpy_array

    def convert(value: Any) -> Any:
        bfloat16 = isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16
        return to_array(value.float() if bfloat16 else value)

    hook._make_numpy_array = convert


def close_hook() -> None:
    """Make smdebug write the tensors of the last step now instead of when the interpreter exits."""
    smdebug = sys.modules.get("smdebug.pytorch")
    hook = smdebug.get_hook() if smdebug is not None else None
    if hook is None:
        return
    try:
        hook.close()
    except Exception as error:  # noqa: BLE001 - a third party's hook decides what it raises
        logger.warning("debugger: smdebug's hook could not be closed: %s", error)
