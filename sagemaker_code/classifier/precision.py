"""The numeric policy of training, the same for tuning trials and the final training.

Trials choose hyperparameters for the final training, so both must compute alike, and only the final training
is watched by SageMaker Debugger:

- On GPUs with native bfloat16 (compute capability 8.0 and above), the forward pass runs under bfloat16
autocast. It
  needs no gradient scaling, so Debugger's hook sees true gradients. `torch.cuda.is_bf16_supported()` is no
  test for this: it is also true where bfloat16 is merely emulated.
- Everywhere else training runs in float32. float16 would need gradient scaling, which Debugger's rules would
take for
  exploding gradients, and a trial cannot know whether the final training will have a hook.

Evaluation and serving always run in float32.
"""

import torch

NATIVE_BFLOAT16 = (8, 0)
"""First compute capability with bfloat16 arithmetic (CUDA programming guide, "Arithmetic Instructions")."""


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype under which training's forward pass is autocast; None for plain float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= NATIVE_BFLOAT16:
        return torch.bfloat16
    return None
