"""The training script through the container contract, and everything that it must refuse."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train
from classifier import training
from classifier.arguments import LIMITS
from classifier.artifact import ModelCard, load_model
from classifier.checkpoint import Progress
from classifier.errors import (
    CheckpointValueError,
    DatasetValueError,
    DivergenceValueError,
    HyperparameterValueError,
    InputValueError,
    ModelValueError,
)
from classifier.weights import read_weights

from tests.sagemaker_code.conftest import Trainer
from tests.sagemaker_code.containers import SHARED_DATA, SOURCE, TINY, Container, channels_of

EPOCH_LINE = re.compile(
    r"^epoch=(\d+) train_loss=(\S+) train_accuracy=(\S+) valid_loss=(\S+) valid_accuracy=(\S+) "
    r"seconds=[\d.]+ images_per_second=\d+$",
    re.MULTILINE,
)
FINAL_LINE = re.compile(
    r"^final best_epoch=(\d+) valid_loss=(\S+) valid_accuracy=(\S+) test_loss=(\S+) test_accuracy=(\S+) "
    r"test_images=(\d+)$",
    re.MULTILINE,
)


def weights_of(base: Path) -> bytes:
    return (base / "model/model.safetensors").read_bytes()


class TestContainer:
    """AWS's toolkit starts the script, with /opt/ml in a temporary folder."""

    def test_a_job_with_a_debugger(self, container: Container, dataset: Path) -> None:
        tensors = container.base / "tensors"
        configuration = container.base / "input/config/debughookconfig.json"
        configuration.write_text(
            json.dumps(
                {
                    "LocalPath": str(tensors),
                    "HookParameters": {"train.save_interval": "2", "eval.save_interval": "1"},
                    "CollectionConfigurations": [
                        {"CollectionName": "losses"},
                        {"CollectionName": "gradients"},
                        {
                            "CollectionName": "relu_input",
                            "CollectionParameters": {"include_regex": ".*relu_input"},
                        },
                    ],
                }
            )
        )
        outcome = container.run(TINY | {"epochs": 4}, channels_of(dataset))

        assert outcome.exit_code == 0, outcome.log
        epochs = EPOCH_LINE.findall(outcome.log)
        assert [row[0] for row in epochs] == ["1", "2", "3", "4"]
        final = FINAL_LINE.search(outcome.log)
        assert final
        assert final[3] == max(row[4] for row in epochs)
        assert final[6] == "15"
        assert float(final[5]) >= 0.6, "three simple shapes should not be left to chance (0.33)"
        assert "no channel 'pretrained': resnet18 starts from random weights" in outcome.log
        assert "as there is no GPU" in outcome.log or torch.cuda.is_available()

        card = ModelCard.read(container.model_dir)
        assert card.classes == ("001.Red_disc", "002.Green_bar", "003.Blue_box")
        assert (card.arch, card.image_size) == ("resnet18", 32)
        assert (container.model_dir / "code/inference.py").exists()
        metrics = json.loads((container.base / "output/data/metrics.json").read_text())
        assert metrics["final"]["test_accuracy"] == pytest.approx(float(final[5]), abs=1e-4)
        assert sum(map(sum, metrics["final"]["confusion"])) == 15
        with (container.base / "output/data/history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["valid_loss"]) for row in rows] == [row["valid_loss"] for row in metrics["history"]]

        from smdebug.core.modes import ModeKeys
        from smdebug.trials import create_trial

        trial = create_trial(str(tensors))
        assert trial.steps(ModeKeys.TRAIN)[:2] == [0, 1], "every 2 steps is too rarely for so short a run"
        assert trial.steps(ModeKeys.EVAL)[:3] == [0, 1, 2]
        assert trial.tensor_names(collection="losses")
        gradients = trial.tensor_names(collection="gradients")
        assert "gradient/ResNet_fc.weight" in gradients
        assert any("relu_input" in name for name in trial.tensor_names(collection="relu_input"))

    def test_a_failure_names_the_reason(self, container: Container, own_dataset: Path) -> None:
        broken = own_dataset / "train/002.Green_bar/001.jpg"
        broken.write_bytes(broken.read_bytes()[:-300])
        outcome = container.run(TINY, channels_of(own_dataset))
        assert outcome.exit_code == 1
        assert "train/002.Green_bar/001.jpg is damaged or cut off" in outcome.failure[:1024]
        assert "replace the file or delete it" in outcome.failure[:1024]
        assert "Traceback" not in outcome.failure[:1024]
        assert not list(container.model_dir.iterdir())

    @pytest.mark.parametrize("loading", [{}, {"cache-mb": 0, "num-workers": 2}], ids=["cached", "workers"])
    def test_a_killed_job_leaves_its_best_model_and_resumes(
        self, container: Container, dataset: Path, loading: dict[str, object]
    ) -> None:
        (container.base / "checkpoints").mkdir()
        hyperparameters = TINY | {"arch": "squeezenet1_1", "epochs": 15} | loading
        container.configure(hyperparameters, channels_of(dataset))
        process = container.start()
        assert process.stdout
        epochs = 0
        for line in process.stdout:
            if EPOCH_LINE.search(line):
                epochs += 1
                if epochs == 2:  # the first one is complete
                    break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        metrics = json.loads((container.base / "output/data/metrics.json").read_text())
        done = len(metrics["history"])
        assert 1 <= done < 15
        assert metrics["final"] is None
        load_model(container.model_dir, torch.device("cpu"))

        shutil.rmtree(container.model_dir)
        container.model_dir.mkdir()
        outcome = container.run(hyperparameters, channels_of(dataset))
        assert outcome.exit_code == 0, outcome.log
        assert f"resumed after epoch {done} " in outcome.log
        assert EPOCH_LINE.findall(outcome.log)[0][0] == str(done + 1)
        load_model(container.model_dir, torch.device("cpu"))


class TestReproducibility:
    def test_a_seed_gives_the_same_bytes_and_another_does_not(
        self, train_here: Trainer, dataset: Path
    ) -> None:
        first, again = (weights_of(train_here(dataset, job)) for job in ("a", "b"))
        assert first == again
        assert first != weights_of(train_here(dataset, "c", seed=4))

    def test_neither_workers_nor_cache_change_the_model(self, train_here: Trainer, dataset: Path) -> None:
        """Dropout, too, must not draw other random numbers when workers persist."""
        options: dict[str, object] = {"arch": "squeezenet1_1", "epochs": 2}
        cached = weights_of(train_here(dataset, "a", **options))
        assert cached == weights_of(train_here(dataset, "b", cache_mb=0, num_workers=2, **options))

    @pytest.mark.parametrize("loading", [{}, {"cache_mb": 0, "num_workers": 2}])
    def test_an_interrupted_job_ends_like_an_uninterrupted_one(
        self,
        train_here: Trainer,
        dataset: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        loading: dict[str, object],
    ) -> None:
        """With dropout, momentum and a schedule: everything that has a state."""
        options: dict[str, object] = {"arch": "squeezenet1_1", "epochs": 3, **loading}
        whole = train_here(dataset, "whole", **options)

        (tmp_path / "cut/checkpoints").mkdir(parents=True)
        run_epoch = training.run_epoch

        def interrupted(job: training.Job, epoch: int, progress: Progress) -> None:
            if epoch == 2:
                job.stop.set()
            run_epoch(job, epoch, progress)

        monkeypatch.setattr(training, "run_epoch", interrupted)
        cut = train_here(dataset, "cut", **options)
        assert json.loads((cut / "output/data/metrics.json").read_text())["final"] is None
        monkeypatch.setattr(training, "run_epoch", run_epoch)
        shutil.rmtree(cut / "model")
        train_here(dataset, "cut", **options)
        assert weights_of(cut) == weights_of(whole)
        finals = [
            json.loads((base / "output/data/metrics.json").read_text())["final"] for base in (cut, whole)
        ]
        assert finals[0] == finals[1]

    def test_another_jobs_checkpoint_is_refused(
        self, train_here: Trainer, dataset: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "job/checkpoints").mkdir(parents=True)
        train_here(dataset, epochs=1)
        with pytest.raises(
            CheckpointValueError, match=r"belongs to a job with another lr: empty the checkpoint folder"
        ):
            train_here(dataset, epochs=1, lr=0.01)
        (tmp_path / "job/checkpoints/checkpoint.pt").write_bytes(b"cut off")
        with pytest.raises(CheckpointValueError, match=r"checkpoint\.pt is damaged: delete it"):
            train_here(dataset, epochs=1)


class TestTransfer:
    """A trained network's weights as the channel `pretrained` of the next."""

    @pytest.fixture
    def pretrained(self, train_here: Trainer, dataset: Path, tmp_path: Path) -> Path:
        channel = tmp_path / "pretrained"
        channel.mkdir()
        base = train_here(dataset, "first", epochs=1)
        shutil.copy(base / "model/model.safetensors", channel / "resnet18.safetensors")
        return channel

    def test_the_head_is_trained_by_default(
        self, train_here: Trainer, dataset: Path, pretrained: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        base = train_here(dataset, "second", pretrained, epochs=1)
        assert "resnet18 at 32 pixels, trainable=head: 1,539 of 11,178,051 parameters" in caplog.text
        before, after = (
            read_weights(pretrained / "resnet18.safetensors"),
            read_weights(base / "model/model.safetensors"),
        )
        assert {name for name in after if not torch.equal(after[name], before[name])} == {
            "fc.weight",
            "fc.bias",
        }

    def test_weights_of_another_architecture(
        self, train_here: Trainer, dataset: Path, pretrained: Path
    ) -> None:
        with pytest.raises(
            ModelValueError, match=r"resnet18\.safetensors are not those of arch='squeezenet1_1'"
        ):
            train_here(dataset, "second", pretrained, arch="squeezenet1_1")

    def test_ambiguous_channel(self, train_here: Trainer, dataset: Path, pretrained: Path) -> None:
        shutil.copy(pretrained / "resnet18.safetensors", pretrained / "other.pth")
        with pytest.raises(
            DatasetValueError, match=r"holds other\.pth, resnet18\.safetensors but must hold one"
        ):
            train_here(dataset, "second", pretrained)


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "value", "allowed"),
        [
            ("lr", "0", "above 0 and at most 10"),
            ("lr", "-0.1", "above 0"),
            ("lr", "nan", "above 0"),
            ("lr", "fast", "above 0"),
            ("momentum", "1", "from 0 to 0.999"),
            ("weight-decay", "-1", "from 0 to 1"),
            ("batch-size", "0", "whole number from 1 to 4,096"),
            ("batch-size", "2.5", "whole number"),
            ("epochs", "0", "whole number from 1 to 1,000"),
            ("image-size", "8", "whole number from 16 to 1,024"),
            ("seed", "-1", "whole number"),
            ("trainable", "tail", "choose from"),
            ("debugger-rules", "Overfit,", "'' is no rule: write NAME or NAME:parameter=value"),
            ("debugger-rules", "Overfit:patience", "'Overfit:patience' is no rule"),
            ("debugger-rules", "Overfitt", r"there is no rule 'Overfitt': did you mean Overfit\?"),
        ],
    )
    def test_hyperparameter_out_of_range(
        self, train_here: Trainer, dataset: Path, name: str, value: str, allowed: str
    ) -> None:
        with pytest.raises(HyperparameterValueError, match=f"argument --{name}: .*{allowed}"):
            train_here(dataset, **{name: value})

    def test_help_states_every_limit(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            train.main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        for name, limits in LIMITS.items():
            assert re.search(rf"--{name} [^-]*; {limits} ", text), name

    def test_names_and_limits_can_be_read_without_the_heavy_packages(self) -> None:
        """Other parts of the project check their lists against these, in environments without them."""
        program = (
            "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'smdebug']));"
            "from classifier.arguments import LIMITS; from debugger.rules import RULE_NAMES;"
            "assert LIMITS['epochs'].high == 1000 and 'Overfit' in RULE_NAMES"
        )
        subprocess.run([sys.executable, "-c", program], cwd=SOURCE, check=True)

    def test_unknown_hyperparameter(self, train_here: Trainer, dataset: Path) -> None:
        with pytest.raises(HyperparameterValueError, match="unrecognized arguments: --learning-rate"):
            train_here(dataset, learning_rate=0.1)

    def test_unknown_architecture(self, train_here: Trainer, dataset: Path) -> None:
        with pytest.raises(ModelValueError, match=r"arch='resnet19' .* did you mean resnet1"):
            train_here(dataset, arch="resnet19")

    @pytest.mark.parametrize("channel", ["train", "valid", "test"])
    def test_missing_channel(self, channel: str, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(f"SM_CHANNEL_{channel.upper()}", raising=False)
        argv = [
            text
            for name, folder in channels_of(dataset).items()
            for text in (f"--{name}", str(folder))
            if name != channel
        ]
        with pytest.raises(
            DatasetValueError, match=rf"channel '{channel}' is missing: give .* InputDataConfig"
        ):
            train.main(argv)

    def test_empty_class_folder(self, train_here: Trainer, own_dataset: Path) -> None:
        (own_dataset / "test/002.Green_bar/000.jpg").unlink()
        with pytest.raises(DatasetValueError, match=r"'test': the class folder '002\.Green_bar' is empty"):
            train_here(own_dataset)

    def test_class_that_training_lacks(self, train_here: Trainer, own_dataset: Path) -> None:
        shutil.copytree(own_dataset / "valid/003.Blue_box", own_dataset / "valid/004.Yellow_ring")
        with pytest.raises(DatasetValueError, match=r"'valid' .* lacks: 004\.Yellow_ring"):
            train_here(own_dataset)

    def test_file_that_is_no_image(self, train_here: Trainer, own_dataset: Path) -> None:
        (own_dataset / "train/001.Red_disc/labels.jpg").write_text("a,b\n")
        with pytest.raises(DatasetValueError, match=r"train/001\.Red_disc/labels\.jpg is not an image"):
            train_here(own_dataset)

    def test_damaged_image_is_found_without_cache_too(self, train_here: Trainer, own_dataset: Path) -> None:
        broken = own_dataset / "train/001.Red_disc/000.jpg"
        broken.write_bytes(broken.read_bytes()[:-300])
        with pytest.raises(DatasetValueError, match=r"train/001\.Red_disc/000\.jpg is damaged"):
            train_here(own_dataset, cache_mb=0)

    def test_divergence(self, train_here: Trainer, dataset: Path) -> None:
        with pytest.raises(DivergenceValueError, match="lower lr or momentum"):
            train_here(dataset, arch="squeezenet1_1", lr=10, momentum=0.999, weight_decay=1, epochs=30)

    def test_every_error_is_one_that_the_script_reports_in_a_line(self) -> None:
        assert issubclass(InputValueError, ValueError)


class TestWithoutDebugger:
    def test_no_configuration(
        self, train_here: Trainer, dataset: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        train_here(dataset, epochs=1)
        assert "no tensors are saved: the job has no debugger configuration" in caplog.text

    def test_hook_that_cannot_be_made(
        self, train_here: Trainer, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        configuration = tmp_path / "job/input/config/debughookconfig.json"
        configuration.parent.mkdir(parents=True)
        configuration.write_text('{"LocalPath": 7, "CollectionConfigurations": [{}]}')
        base = train_here(dataset, epochs=1)
        assert "no tensors are saved: smdebug made no hook" in caplog.text
        assert weights_of(base)

    def test_smdebug_is_not_installed(
        self, train_here: Trainer, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        configuration = tmp_path / "job/input/config/debughookconfig.json"
        configuration.parent.mkdir(parents=True)
        configuration.write_text("{}")
        for name in ("smdebug", "smdebug.pytorch"):
            monkeypatch.setitem(sys.modules, name, None)
        train_here(dataset, epochs=1)
        assert "no tensors are saved: smdebug cannot be imported" in caplog.text


def test_real_images_with_real_weights(train_here: Trainer, tmp_path: Path) -> None:
    """A part of six breeds; SqueezeNet's head on ImageNet features must be far above chance (0.167)."""
    source, weights = SHARED_DATA / "dogImages", SHARED_DATA / "weights"
    if not source.is_dir() or not weights.is_dir():
        pytest.skip(f"no dogImages or weights in {SHARED_DATA}")
    for channel, count in (("train", 40), ("valid", 8), ("test", 20)):
        for folder in (source / channel).iterdir():
            target = tmp_path / "dogs" / channel / folder.name
            target.mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                (target / file.name).symlink_to(file)
    base = train_here(
        tmp_path / "dogs", pretrained=weights, arch="squeezenet1_0", image_size=96, epochs=4, batch_size=32
    )
    final = json.loads((base / "output/data/metrics.json").read_text())["final"]
    assert final["test_accuracy"] >= 0.45
