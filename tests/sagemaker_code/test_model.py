"""Every family of architectures has a head, a last block and weights that are checked."""

from pathlib import Path

import pytest
import torch
from classifier import model
from classifier.errors import ModelValueError
from classifier.weights import read_weights, to_safetensors
from torch import nn

from tests.sagemaker_code.containers import SHARED_DATA

FAMILIES = [
    # architecture, image size, head, first module of the last block
    ("alexnet", 64, "classifier.6", "classifier.4"),
    ("convnext_tiny", 32, "classifier.2", "features.7.2"),
    ("densenet121", 32, "classifier", "features.denseblock4.denselayer16"),
    ("efficientnet_b0", 32, "classifier.1", "features.7.0"),
    ("efficientnet_v2_s", 33, "classifier.1", "features.6.14"),
    ("googlenet", 32, "fc", "inception5b"),
    ("inception_v3", 75, "fc", "Mixed_7c"),
    ("mnasnet0_5", 32, "classifier.1", "layers.13.0"),
    ("mobilenet_v2", 32, "classifier.1", "features.17"),
    ("mobilenet_v3_small", 32, "classifier.3", "features.11"),
    ("regnet_x_400mf", 32, "fc", "trunk_output.block4.block4-11"),
    ("regnet_y_400mf", 32, "fc", "trunk_output.block4.block4-5"),
    ("resnet18", 32, "fc", "layer4.1"),
    ("resnet50", 32, "fc", "layer4.2"),
    ("shufflenet_v2_x0_5", 32, "fc", "stage4.3"),
    ("squeezenet1_0", 32, "classifier.1", "features.12"),
    ("swin_t", 64, "head", "features.7.1"),
    ("swin_v2_t", 64, "head", "features.7.1"),
    ("vgg11_bn", 32, "classifier.6", "classifier.3"),
    ("vit_b_32", 64, "heads.head", "encoder.layers.encoder_layer_11"),
    ("maxvit_t", 224, "classifier.5", "blocks.3"),
]
META_FAILS = ("regnet", "alexnet")
"""Architectures that read tensor values, some of them with older PyTorch only: the meta device has none."""


def on_meta(arch: str) -> torch.device:
    return torch.device("cpu" if arch.startswith(META_FAILS) else "meta")


def layers_that_follow_the_class_count(arch: str, image_size: int) -> set[str]:
    """The head by its definition: what changes shape with the number of classes."""
    shapes = []
    for count in (2, 3):
        with on_meta(arch):
            built = model._construct(arch, count, image_size)
        shapes.append({name: parameter.shape for name, parameter in built.named_parameters()})
    return {name.rpartition(".")[0] for name in shapes[0] if shapes[0][name] != shapes[1][name]}


@pytest.mark.parametrize(("arch", "image_size", "head", "last"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_parts_of_a_family(arch: str, image_size: int, head: str, last: str) -> None:
    with on_meta(arch):
        built = model._construct(arch, 5, image_size)
        scores = built.eval()(torch.zeros(1, 3, image_size, image_size))
    assert scores.shape == (1, 5)
    assert model.head_name(built) == head
    assert layers_that_follow_the_class_count(arch, image_size) == {head}
    assert model.last_block(built)[0] == last

    model.freeze(built, "last_block")
    trained = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    assert any(name.startswith(f"{head}.") for name in trained)
    assert any(name.startswith(f"{last}.") for name in trained)
    assert len(trained) < len(list(built.parameters())) / 1.5


def test_every_architecture_of_torchvision_belongs_to_a_tested_family() -> None:
    families = {arch.split("_")[0].rstrip("0123456789") for arch, *_ in FAMILIES}
    relatives = {"resnext", "wide_resnet"}
    assert [name for name in model.architectures() if not name.startswith((*families, *relatives))] == []


class TestBuild:
    @pytest.mark.parametrize(
        ("arch", "hint"),
        [("resnet-50", "did you mean resnet50"), ("ResNet18", "resnet18"), ("unheard", "alexnet")],
    )
    def test_unknown_architecture(self, arch: str, hint: str) -> None:
        with pytest.raises(ModelValueError, match=f"arch='{arch}' is not a torchvision .*{hint}"):
            model.build(arch, 3, 64)

    def test_detection_and_segmentation_are_no_classification(self) -> None:
        with pytest.raises(ModelValueError, match="is not a torchvision classification architecture"):
            model.build("fcn_resnet50", 3, 64)

    @pytest.mark.parametrize(
        ("arch", "image_size", "reason"),
        [
            ("alexnet", 32, "too small.*63 pixels or more"),
            ("vit_b_32", 72, "patch size"),
            ("inception_v3", 32, "75 pixels or more"),
        ],
    )
    def test_image_size_that_cannot_work(self, arch: str, image_size: int, reason: str) -> None:
        with pytest.raises(ModelValueError, match=f"arch='{arch}' does not work with image-size=.*{reason}"):
            model.build(arch, 3, image_size)

    def test_squeezenet_scores_can_be_negative(self) -> None:
        torch.manual_seed(0)
        built = model.build("squeezenet1_1", 50, 32)
        assert built.eval()(torch.randn(1, 3, 32, 32)).min() < 0


class TestFreeze:
    @pytest.fixture
    def network(self) -> nn.Module:
        return model.build("resnet18", 3, 32)

    def test_frozen_parts_stay_as_they_are(self, network: nn.Module) -> None:
        model.freeze(network, "head")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        model.train_mode(network)
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
        network(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        changed = {
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed == {"fc.weight", "fc.bias"}

    def test_last_block_updates_its_own_batch_statistics_only(self, network: nn.Module) -> None:
        model.freeze(network, "last_block")
        before = {name: value.clone() for name, value in network.state_dict().items()}
        model.train_mode(network)
        network(torch.randn(4, 3, 32, 32))
        changed = {
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed
        assert all(name.startswith("layer4.1.") for name in changed)

    def test_all(self, network: nn.Module) -> None:
        model.freeze(network, "all")
        model.train_mode(network)
        assert all(parameter.requires_grad for parameter in network.parameters())
        assert all(module.training for module in network.modules())

    def test_dropout_of_a_frozen_part_is_off(self) -> None:
        with on_meta("alexnet"):
            network = model._construct("alexnet", 3, 64)
        model.freeze(network, "head")
        model.train_mode(network)
        assert not network.get_submodule("classifier.0").training
        assert network.get_submodule("classifier.6").training


@pytest.fixture(scope="module")
def imagenet_like() -> dict[str, torch.Tensor]:
    """Random weights in the layout of torchvision's ImageNet weights."""
    torch.manual_seed(1)
    state: dict[str, torch.Tensor] = model.build("resnet18", 1000, 32).state_dict()
    return state


class TestPretrained:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_backbone_is_loaded_and_head_is_not(
        self, imagenet_like: dict[str, torch.Tensor], tmp_path: Path, suffix: str
    ) -> None:
        file = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save(imagenet_like, file)
        else:
            file.write_bytes(to_safetensors(imagenet_like))
        network = model.build("resnet18", 3, 32)
        model.load_pretrained(network, "resnet18", file)
        state = network.state_dict()
        assert state["fc.weight"].shape == (3, 512)
        assert all(
            torch.equal(state[name], value) for name, value in imagenet_like.items() if "fc." not in name
        )

    def test_weights_of_another_architecture(
        self, imagenet_like: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        file = tmp_path / "resnet18.pth"
        torch.save(imagenet_like, file)
        with pytest.raises(
            ModelValueError, match=r"resnet18\.pth are not those of arch='resnet34'.*missing.*layer"
        ):
            model.load_pretrained(model.build("resnet34", 3, 32), "resnet34", file)
        with pytest.raises(ModelValueError, match=r"of another shape \(.*into the channel 'pretrained'"):
            model.load_pretrained(model.build("resnet50", 3, 32), "resnet50", file)

    def test_auxiliary_classifiers_are_dropped(self, tmp_path: Path) -> None:
        network = model.build("googlenet", 3, 32)
        weights = network.state_dict() | {
            "aux1.fc1.weight": torch.zeros(1),
            "AuxLogits.fc.bias": torch.zeros(1),
        }
        torch.save(weights, tmp_path / "googlenet.pth")
        model.load_pretrained(network, "googlenet", tmp_path / "googlenet.pth")

    def test_names_of_old_densenet_files(self, tmp_path: Path) -> None:
        network = model.build("densenet121", 3, 32)
        old = {
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
            for name, value in network.state_dict().items()
        }
        torch.save(old, tmp_path / "densenet121.pth")
        model.load_pretrained(network, "densenet121", tmp_path / "densenet121.pth")

    def test_vision_transformer_takes_weights_of_another_image_size(self, tmp_path: Path) -> None:
        large = model.build("vit_b_32", 5, 96)
        torch.save(large.state_dict(), tmp_path / "vit.pth")
        small = model.build("vit_b_32", 3, 64)
        model.load_pretrained(small, "vit_b_32", tmp_path / "vit.pth")
        corner = large.state_dict()["encoder.pos_embedding"][0, 1]
        assert torch.allclose(small.state_dict()["encoder.pos_embedding"][0, 1], corner, atol=1e-6)

    @pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
    def test_file_without_weights(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        file.write_bytes(b"not weights at all")
        with pytest.raises(ModelValueError, match=f"{name} cannot be read as weights"):
            read_weights(file)

    def test_cut_off_file(self, tmp_path: Path) -> None:
        file = tmp_path / "cut.safetensors"
        file.write_bytes(to_safetensors({"a": torch.ones(4, 4)})[:-8])
        with pytest.raises(ModelValueError, match=r"cut\.safetensors cannot be read"):
            read_weights(file)

    def test_a_whole_pickled_model_is_refused_unexecuted(self, tmp_path: Path) -> None:
        file = tmp_path / "model.pth"
        torch.save(nn.Linear(2, 2), file)
        with pytest.raises(ModelValueError, match="give a state dict"):
            read_weights(file)

    def test_a_checkpoint_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "checkpoint.pth"
        torch.save({"epoch": 3, "model": {}}, file)
        with pytest.raises(ModelValueError, match="holds no state dict"):
            read_weights(file)

    def test_real_weights(self) -> None:
        file = SHARED_DATA / "weights/squeezenet1_0.pth"
        if not file.exists():
            pytest.skip(f"no weights in {file.parent}")
        model.load_pretrained(model.build("squeezenet1_0", 6, 64), "squeezenet1_0", file)
        with pytest.raises(ModelValueError, match="not those of arch='squeezenet1_1'"):
            model.load_pretrained(model.build("squeezenet1_1", 6, 64), "squeezenet1_1", file)


class TestSafetensors:
    TENSORS = {  # noqa: RUF012
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a": torch.tensor(7),
        "half": torch.tensor([0.5, -1.0], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }

    def test_the_library_reads_what_is_written(self) -> None:
        library = pytest.importorskip("safetensors.torch")
        read = library.load(to_safetensors(self.TENSORS))
        assert read.keys() == self.TENSORS.keys()
        assert all(torch.equal(read[name], value) for name, value in self.TENSORS.items())

    def test_what_the_library_writes_is_read(self, tmp_path: Path) -> None:
        library = pytest.importorskip("safetensors.torch")
        file = tmp_path / "weights.safetensors"
        library.save_file(self.TENSORS, file, metadata={"format": "pt"})
        read = read_weights(file)
        assert read.keys() == self.TENSORS.keys()
        assert all(torch.equal(read[name], value) for name, value in self.TENSORS.items())

    def test_channels_last_weights_are_written_in_order(self) -> None:
        weight = torch.randn(2, 3, 4, 4)
        assert to_safetensors({"w": weight}) == to_safetensors(
            {"w": weight.to(memory_format=torch.channels_last)}
        )


def test_head_input_energy_is_the_squared_norm_of_the_pooled_features() -> None:
    torch.manual_seed(0)
    batch = torch.randn(5, 3, 64, 64)
    for arch in ("resnet18", "squeezenet1_0"):
        network = model.build(arch, 3, 64)
        backbone = nn.Sequential(
            *list(network.children())[:-1]
        )  # in both the last child holds the head alone
        with torch.no_grad():
            features = backbone(batch)
        expected = features.mean((2, 3)).square().sum(1).mean().item()
        assert model.head_input_energy(network, [batch[:2], batch[2:]]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_residual_branches_start_small_and_every_weight_has_a_gradient(arch: str) -> None:
    network = model.build(arch, 5, 32).train()
    scores = network(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    torch.autograd.backward(nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 3])))
    last = network.get_submodule("layer1.0").get_submodule("bn2" if arch == "resnet18" else "bn3")
    assert torch.all(last.get_parameter("weight") == model.BRANCH_SCALE)
    smallest = min(p.grad.abs().mean().item() for p in network.parameters() if p.grad is not None)
    assert smallest > 1e-7  # where the rule VanishingGradient begins
