"""Any torchvision classification architecture as a backbone and a head, with or without pretrained weights.

The head is the output layer. In all of torchvision's architectures it is the last layer that has parameters.
"""

import difflib
import importlib
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from classifier.errors import ModelValueError
from classifier.weights import read_weights

logger = logging.getLogger(__name__)

Trainable = Literal["head", "last_block", "all"]

_AUXILIARY = ("googlenet", "inception_v3")
"""Architectures with auxiliary classifiers and an input range of their own."""
BRANCH_SCALE = 0.05
"""Initial scale of the residual branches of a ResNet with random weights. Near zero it learns several times
faster (Goyal et al. 2017, section 5.1); at exactly zero, the first gradients of the branches would be zero
too."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_SHOWN_KEYS = 3


def _torchvision() -> ModuleType:
    """torchvision.models. The import takes seconds, and bad input should fail before that."""
    models: ModuleType = importlib.import_module("torchvision.models")
    return models


def architectures() -> list[str]:
    """Names of torchvision's classification architectures."""
    names: list[str] = _torchvision().list_models(module=_torchvision())
    return names


def check_architecture(arch: str) -> None:
    """Raise ModelValueError with the nearest names if torchvision does not have this architecture."""
    names = architectures()
    if arch not in names:
        near = difflib.get_close_matches(arch.lower().replace("-", "_"), names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(names)}"
        raise ModelValueError(f"arch='{arch}' is not a torchvision classification architecture: {hint}")


def build(arch: str, class_count: int, image_size: int) -> nn.Module:
    """A random model, in evaluation mode, that works at `image_size` pixels. Raises ModelValueError."""
    check_architecture(arch)
    try:
        model = _construct(arch, class_count, image_size)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelValueError(
            f"arch='{arch}' does not work with image-size={image_size} ({_first_line(error)}): "
            f"torchvision's own weights accept {native_size(arch)} pixels or more"
        ) from error
    return model


def _construct(arch: str, class_count: int, image_size: int) -> nn.Module:
    options: dict[str, Any] = {}
    if arch in _AUXILIARY:
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif arch.startswith("vit_"):
        options = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    model: nn.Module = _torchvision().get_model(arch, weights=None, num_classes=class_count, **options)
    if arch.startswith("squeezenet"):
        _drop_final_relu(model)
    _scale_down_residual_branches(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 20 to 50 % faster on CPUs
    return model


def _scale_down_residual_branches(model: nn.Module) -> None:
    """Set the last normalisation of every residual block to BRANCH_SCALE; pretrained weights overwrite it."""
    resnet = _torchvision().resnet
    for block in model.modules():
        if isinstance(block, resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, BRANCH_SCALE)
        elif isinstance(block, resnet.BasicBlock):
            nn.init.constant_(block.bn2.weight, BRANCH_SCALE)


def _drop_final_relu(model: nn.Module) -> None:
    """Remove the ReLU behind SqueezeNet's scores.

    A class whose scores are negative for every image gets no gradient through the ReLU. At the learning rates
    that suit a linear head, all classes reach that state within one epoch.
    """
    classifier = model.get_submodule("classifier")
    for name, layer in classifier.named_children():
        if isinstance(layer, nn.ReLU):
            setattr(classifier, name, nn.Identity())


def native_size(arch: str) -> int:
    """The smallest input, in pixels, for torchvision's weights of `arch`. Raises ModelValueError."""
    check_architecture(arch)
    return int(_torchvision().get_model_weights(arch).DEFAULT.meta["min_size"][0])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def head_name(model: nn.Module) -> str:
    """Name of the output layer in `model.named_modules()`; the backbone is everything else."""
    names: list[str] = [name for name, module in model.named_modules() if _has_own_parameters(module)]
    return names[-1]


def backbone_units(model: nn.Module) -> list[str]:
    """Names of the backbone's blocks and single layers, in forward order.

    Containers are replaced by their children, and so is a module that holds nearly all of the backbone's
    parameters, such as the encoder of a transformer.
    """
    head = head_name(model)
    sizes = {name: _size(module) for name, module in model.named_modules()}
    container_size = 0.8 * (sizes[""] - sizes[head])

    def units(module: nn.Module, prefix: str) -> Iterator[str]:
        for child_name, child in module.named_children():
            name = prefix + child_name
            if name == head or not sizes[name]:
                continue
            large = sizes[name] > container_size and _has_layers(child)
            if large or isinstance(child, _CONTAINERS):
                yield from units(child, f"{name}.")
            else:
                yield name

    return list(units(model, ""))


def last_block(model: nn.Module) -> list[str]:
    """Names of the backbone's last block and of the layers after it.

    A block is a residual block, a transformer layer or similar. In networks of plain layers (AlexNet, VGG) it
    is the last layer.
    """
    units = backbone_units(model)
    blocks = [index for index, name in enumerate(units) if _has_layers(model.get_submodule(name))]
    return units[blocks[-1] if blocks else -1 :]


def freeze(model: nn.Module, trainable: Trainable) -> None:
    """Keep the weights of everything that `trainable` does not name."""
    if trainable == "all":
        return
    model.requires_grad_(False)
    names = [head_name(model), *(last_block(model) if trainable == "last_block" else [])]
    for name in names:
        model.get_submodule(name).requires_grad_(True)


def train_mode(model: nn.Module) -> None:
    """Training mode for modules whose parameters are all trained, evaluation mode for the others.

    A frozen backbone therefore neither updates batch statistics nor applies dropout.
    """
    model.eval()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and all(parameter.requires_grad for parameter in parameters):
            module.train()


@torch.inference_mode()
def head_input_energy(model: nn.Module, batches: Iterable[torch.Tensor]) -> float:
    """Mean squared L2 norm of the output layer's input for batches of normalised images (N, 3, H, W).

    The feature maps before a convolutional head are averaged over positions first, as its scores are.
    """
    energies: list[torch.Tensor] = []

    def measure(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        features = inputs[0].float()
        means = features.flatten(2).mean(2) if features.ndim == 4 else features
        energies.append(means.square().sum(1))

    handle = model.get_submodule(head_name(model)).register_forward_pre_hook(measure)
    model.eval()
    for batch in batches:
        model(batch)
    handle.remove()
    return torch.cat(energies).mean().item()


def load_pretrained(model: nn.Module, arch: str, file: Path) -> None:
    """Load torchvision-layout weights (.pth state dict or .safetensors) into the backbone.

    The file's output layer, which was trained for other classes, and auxiliary classifiers are ignored; the
    model's output layer keeps its random initialisation. Raises ModelValueError for weights of another
    architecture.
    """
    weights = {_current_name(name): value for name, value in read_weights(file).items()}
    head = head_name(model)
    own = model.state_dict()
    given = {name: value for name, value in weights.items() if not _ignored(name, head, own)}
    expected = {name: value for name, value in own.items() if not _below(name, head)}
    _fit_positions(given, expected, arch)
    problems = _differences(given, expected)
    if problems:
        raise ModelValueError(
            f"the weights in {file.name} are not those of arch='{arch}': {'; '.join(problems)}. "
            f"Put torchvision's {arch} weights into the channel 'pretrained', or correct arch"
        )
    model.load_state_dict(given, strict=False)


def _current_name(name: str) -> str:
    """A weight's name without DataParallel's prefix and the extra dots of torchvision's DenseNet files."""
    name = name.removeprefix("module.")
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)


def _below(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def _ignored(name: str, head: str, own: Mapping[str, torch.Tensor]) -> bool:
    auxiliary = name not in own and name.startswith(("aux1.", "aux2.", "AuxLogits."))
    return auxiliary or _below(name, head)


def _fit_positions(given: dict[str, torch.Tensor], expected: Mapping[str, torch.Tensor], arch: str) -> None:
    """Resample a vision transformer's position embedding to the model's number of patches."""
    name = "encoder.pos_embedding"
    if not arch.startswith("vit_") or name not in given or name not in expected:
        return
    class_token, patches = given[name][:, :1], given[name][:, 1:]
    side = math.isqrt(patches.shape[1])
    target = math.isqrt(expected[name].shape[1] - 1)
    if side * side != patches.shape[1] or patches.shape[2] != expected[name].shape[2]:
        return
    grid = patches.permute(0, 2, 1).reshape(1, -1, side, side)
    fitted = nn.functional.interpolate(grid, size=(target, target), mode="bicubic", align_corners=True)
    given[name] = torch.cat([class_token, fitted.flatten(2).permute(0, 2, 1)], dim=1)


def _differences(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """Why `given` cannot be loaded as `expected`: a few names for each reason."""
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    kinds = {
        "missing": sorted(expected.keys() - given.keys() - optional),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": sorted(
            name for name in expected.keys() & given.keys() if expected[name].shape != given[name].shape
        ),
    }
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_KEYS]) + (", ..." if len(names) > _SHOWN_KEYS else "")


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _has_layers(module: nn.Module) -> bool:
    return any(_size(child) for child in module.children())
