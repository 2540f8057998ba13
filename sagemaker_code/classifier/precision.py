"""The numeric policy of training, the same for tuning trials and the final training.

Trials choose hyperparameters for the final training, so all of a run's training jobs must use the same
precision, although only the final training can have a Debugger hook. Evaluation and serving always run in
float32.
"""

import torch

NATIVE_BFLOAT16 = (8, 0)
"""First compute capability with bfloat16 arithmetic (CUDA programming guide, "Arithmetic Instructions").

`torch.cuda.is_bf16_supported()` is no test for this: it is also true where bfloat16 is merely emulated."""


def autocast_dtype(device: torch.device, *, watched: bool) -> torch.dtype | None:
    """The dtype under which training's forward pass is autocast; None for plain float32.

    On GPUs with native bfloat16 it is that: it needs no gradient scaling, so a hook sees true gradients. On
    other GPUs it is float16, unless the run is `watched`: float16 needs a scaled loss
    (Micikevicius et al. 2018, section 3.2), and rules would take scaled gradients for exploding ones.
    """
    if device.type != "cuda":
        return None
    if torch.cuda.get_device_capability(device) >= NATIVE_BFLOAT16:
        return torch.bfloat16
    return None if watched else torch.float16
