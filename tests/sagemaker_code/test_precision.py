"""The numeric policy of training: the dtype for each device, and true gradients in Debugger's hook.

The tests on a GPU skip without CUDA; run them there with

    python -m pytest tests/sagemaker_code/test_precision.py -rs
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier.engine import evaluate, train_one_epoch
from classifier.images import normalise
from classifier.model import build, train_mode
from classifier.optimisation import Optimisation
from classifier.precision import autocast_dtype
from debugger.hook import close_hook, open_hook
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
WEIGHT = "layer1.0.conv1.weight"


class TestPolicy:
    @pytest.mark.parametrize(
        ("capability", "watched", "expected"),
        [
            ((7, 0), True, None),
            ((7, 5), True, None),
            ((7, 5), False, torch.float16),
            ((8, 0), True, torch.bfloat16),
            ((8, 9), False, torch.bfloat16),
            ((9, 0), True, torch.bfloat16),
        ],
    )
    def test_gpus_use_native_bfloat16_or_float16_where_nothing_watches(
        self,
        capability: tuple[int, int],
        watched: bool,
        expected: torch.dtype | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Emulated bfloat16 is supported by PyTorch too, but slow."""
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        assert autocast_dtype(torch.device("cuda"), watched=watched) is expected

    @pytest.mark.parametrize("watched", [True, False])
    def test_the_cpu_trains_in_float32(self, watched: bool) -> None:
        assert autocast_dtype(torch.device("cpu"), watched=watched) is None


@pytest.fixture
def tensors(tmp_path: Path) -> Iterator[Path]:
    """A folder for the tensors of one hook; smdebug keeps a hook for the whole process."""
    import smdebug.pytorch as smd

    smd.del_hook()
    yield tmp_path / "tensors"
    smd.del_hook()


def two_steps(device: torch.device, autocast: torch.dtype | None, tensors: Path) -> None:
    """Train two steps under the hook; it saves the gradients of the loss, neither scaled nor rounded."""
    from smdebug.core.modes import ModeKeys
    from smdebug.trials import create_trial

    torch.manual_seed(0)
    model = build("resnet18", 3, 32).to(device)
    criterion = nn.CrossEntropyLoss()
    configuration = tensors.with_suffix(".json")
    collections: dict[str, dict[str, str]] = {
        "losses": {},
        "gradients": {},
        "relu_input": {"include_regex": ".*relu_input"},
    }
    configuration.write_text(
        json.dumps(
            {
                "LocalPath": str(tensors),
                "HookParameters": {"save_interval": "1"},
                "CollectionConfigurations": [
                    {"CollectionName": name, "CollectionParameters": parameters}
                    for name, parameters in collections.items()
                ],
            }
        )
    )
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(16) % 3
    reference = float32_gradient(copy.deepcopy(model), images[:8].to(device), labels[:8].to(device))
    hook = open_hook(configuration, model, criterion)
    assert hook
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimisation = Optimisation(
        optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), autocast, 1e9
    )
    dtypes: list[torch.dtype] = []
    gradients: list[torch.Tensor] = []
    model.get_submodule("fc").register_forward_hook(lambda *arguments: dtypes.append(arguments[2].dtype))
    weight: Any = model.get_parameter(WEIGHT)
    weight.register_hook(lambda gradient: gradients.append(gradient.detach().clone()))
    loader: DataLoader[Any] = DataLoader(TensorDataset(images, labels), batch_size=8)
    train_one_epoch(model, criterion, loader, optimisation, device, hook=hook)
    evaluate(model, criterion, loader, device, hook=hook)
    close_hook()

    trained = autocast or torch.float32
    assert dtypes == [trained, trained, torch.float32, torch.float32]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    trial = create_trial(str(tensors))
    assert trial.steps(ModeKeys.TRAIN) == [0, 1]
    assert trial.steps(ModeKeys.EVAL) == [0, 1]
    for step, gradient in enumerate(gradients):
        saved = torch.from_numpy(trial.tensor(f"gradient/ResNet_{WEIGHT}").value(step, ModeKeys.TRAIN))
        assert torch.equal(saved, gradient.cpu())
    difference = (gradients[0] - reference).norm() / reference.norm()
    assert difference < (1e-4 if autocast is None else 0.25)
    assert any("relu_input" in name for name in trial.tensor_names(step=1, mode=ModeKeys.TRAIN))


def float32_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    train_mode(model)
    torch.autograd.backward(nn.CrossEntropyLoss()(model(normalise(images)), labels))
    gradient = model.get_parameter(WEIGHT).grad
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_hook_sees_true_gradients_on_the_cpu(autocast: torch.dtype | None, tensors: Path) -> None:
    two_steps(torch.device("cpu"), autocast, tensors)


@needs_cuda
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_hook_sees_true_gradients_on_a_gpu(autocast: torch.dtype | None, tensors: Path) -> None:
    if autocast and autocast_dtype(torch.device("cuda"), watched=True) is None:
        pytest.skip("this GPU has no native bfloat16")
    two_steps(torch.device("cuda"), autocast, tensors)


@needs_cuda
def test_float16_scales_the_loss_and_steps_by_true_gradients_on_a_gpu() -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    model = build("resnet18", 3, 32).to(device)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.arange(8, device=device) % 3
    reference = float32_gradient(copy.deepcopy(model), images, labels)
    before = model.get_parameter(WEIGHT).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    optimisation = Optimisation(optimizer, schedule, torch.float16, 1e9)
    loader: DataLoader[Any] = DataLoader(TensorDataset(images.cpu(), labels.cpu()), batch_size=8)
    train_one_epoch(model, nn.CrossEntropyLoss(), loader, optimisation, device)
    assert optimisation.scaler.get_scale() > 1
    moved = (before - model.get_parameter(WEIGHT).detach()) / 0.5
    assert (moved - reference).norm() / reference.norm() < 0.25
