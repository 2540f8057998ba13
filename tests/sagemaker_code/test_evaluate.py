"""The evaluation script through its command line, and everything that it must refuse."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
from classifier.artifact import ModelCard, save_model
from classifier.errors import DatasetValueError, InputValueError, ModelValueError
from classifier.model import build
from evaluation.kept_images import sample
from PIL import Image

from tests.sagemaker_code.conftest import Trainer
from tests.sagemaker_code.containers import CLASSES, SOURCE

NAMES = tuple(CLASSES)
CHARTS = ["confusion_matrix.png", "recall_by_class.png", "reliability.png"]


def save_random_model(
    folder: Path, seed: int, classes: tuple[str, ...] = NAMES, image_size: int = 32
) -> Path:
    """An untrained SqueezeNet whose predictions depend on the image."""
    torch.manual_seed(seed)
    network = build("squeezenet1_1", len(classes), image_size)
    save_model(network.state_dict(), ModelCard("squeezenet1_1", classes, image_size), folder)
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """As SageMaker packs /opt/ml/model."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, ".")
    return archive


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("champion"), seed=1)


@pytest.fixture(scope="session")
def challenger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed model with another input size."""
    model = save_random_model(tmp_path_factory.mktemp("challenger"), seed=4, image_size=48)
    return pack(model, model.parent / "packed/model.tar.gz")


@dataclass(frozen=True)
class Results:
    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "evaluation.json").read_text())
        return content

    @property
    def quality(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "model_quality.json").read_text())
        return content["multiclass_classification_metrics"]  # type: ignore[no-any-return]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "predictions.jsonl").read_text().splitlines()]


def run(output: Path, test: Path, **options: object) -> Results:
    """The script in this process, with few resamples and images to time."""
    given = {"test": test, "output": output, "bootstrap-samples": 200, "latency-images": 3}
    given |= {name.replace("_", "-"): value for name, value in options.items()}
    evaluate.main([text for name, value in given.items() for text in (f"--{name}", str(value))])
    return Results(output)


def recall_of(predictions: list[dict[str, Any]], role: str, name: str) -> float:
    found = [bool(row[role]["class"] == name) for row in predictions if row["true"] == name]
    return sum(found) / len(found)


@pytest.fixture(scope="session")
def compared(
    dataset: Path, champion: Path, challenger: Path, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    """The results of both models."""
    output = tmp_path_factory.mktemp("compared")
    return run(output, dataset / "test", challenger=challenger, champion=champion)


class TestResults:
    def test_both_models(self, dataset: Path, challenger: Path, compared: Results) -> None:
        document, rows = compared.document, compared.predictions

        assert document["format_version"] == 2
        assert document["test"] == {"images": 15, "classes": 3}
        assert [row["key"] for row in rows] == sorted(
            file.relative_to(dataset / "test").as_posix() for file in (dataset / "test").rglob("*.jpg")
        )
        for role in ("challenger", "champion"):
            model = document["models"][role]
            right = sum(row[role]["class"] == row["true"] for row in rows)
            assert model["accuracy"] == pytest.approx(right / 15)
            assert model["top5_accuracy"] == 1
            assert sum(map(sum, model["confusion_matrix"])) == 15
            assert [entry["recall"] for entry in model["per_class"]] == pytest.approx(
                [recall_of(rows, role, name) for name in NAMES]
            )
            assert sum(part["images"] for part in model["calibration"]["bins"]) == 15
            assert 0 < model["latency"]["median_ms"] <= model["latency"]["p95_ms"]
            assert model["latency"]["images"] == 3
        assert document["models"]["challenger"]["size"]["archive_bytes"] == challenger.stat().st_size
        assert document["models"]["champion"]["size"]["archive_bytes"] is None
        assert document["models"]["challenger"]["per_class"][0]["label"] == "Red disc"

        comparison = document["comparison"]
        assert comparison["bootstrap"] == {"samples": 200, "confidence": 0.95, "seed": 0}
        table = comparison["mcnemar"]
        accuracy = comparison["accuracy"]
        assert sum(table[name] for name in table if name != "p_value") == 15
        assert accuracy["difference"] == pytest.approx(
            (table["only_challenger_right"] - table["only_champion_right"]) / 15
        )
        assert accuracy["interval"][0] <= accuracy["lower_bound"] <= accuracy["difference"]
        assert accuracy["difference"] <= accuracy["upper_bound"] <= accuracy["interval"][1]
        assert [row["known_to"] for row in comparison["recall"]] == ["both"] * 3
        assert comparison["accuracy_on_common_classes"]["difference"] == accuracy["difference"]

        assert document["charts"] == [*CHARTS, "largest_differences.png"]
        for name in document["charts"]:
            with Image.open(compared.folder / name) as image:
                assert min(image.size) > 200

    def test_without_a_champion(
        self, dataset: Path, champion: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO"):
            results = run(tmp_path, dataset / "test", challenger=champion, latency_images=0)
        assert "evaluated 15 of 15 test images" in caplog.text
        assert "no champion" in caplog.text
        document = results.document
        assert document["models"]["champion"] is None
        assert document["comparison"] is None
        assert document["models"]["challenger"]["latency"] is None
        assert document["charts"][:3] == CHARTS
        assert all(row["champion"] is None for row in results.predictions)

    def test_a_seed_gives_the_same_comparison(
        self, dataset: Path, champion: Path, challenger: Path, compared: Results, tmp_path: Path
    ) -> None:
        options = {"challenger": challenger, "champion": champion, "latency_images": 0}
        again = run(tmp_path, dataset / "test", **options)
        assert again.document["comparison"] == compared.document["comparison"]
        assert again.predictions == compared.predictions
        assert again.quality == compared.quality

    def test_metrics_are_those_that_training_gave(
        self, dataset: Path, train_here: Trainer, tmp_path: Path
    ) -> None:
        job = train_here(dataset, arch="squeezenet1_1", epochs=1)
        trained = json.loads((job / "output/data/metrics.json").read_text())["final"]
        results = run(tmp_path / "out", dataset / "test", challenger=job / "model")
        challenger = results.document["models"]["challenger"]
        assert challenger["accuracy"] == pytest.approx(trained["test_accuracy"])
        assert challenger["negative_log_likelihood"] == pytest.approx(trained["test_loss"], abs=1e-4)
        assert challenger["confusion_matrix"] == trained["confusion"]

    def test_model_quality_is_what_a_model_package_takes(self, compared: Results) -> None:
        model, quality = compared.document["models"]["challenger"], compared.quality
        assert quality["accuracy"]["value"] == model["accuracy"]
        assert quality["weighted_recall"]["value"] == pytest.approx(model["accuracy"])
        assert 0 < quality["accuracy"]["standard_deviation"] < 0.3
        assert quality["accuracy_best_constant_classifier"]["value"] == pytest.approx(1 / 3)
        rows = [list(row.values()) for row in quality["confusion_matrix"].values()]
        assert rows == model["confusion_matrix"]

    def test_a_model_with_the_code_of_an_earlier_version(
        self, dataset: Path, challenger: Path, champion: Path, compared: Results, tmp_path: Path
    ) -> None:
        """Its serving code was single modules; only weights and card are read."""
        old = tmp_path / "old"
        old.mkdir()
        for name in ("model.json", "model.safetensors"):
            (old / name).write_bytes((champion / name).read_bytes())
        (old / "code").mkdir()
        for name in ("inference.py", "data.py", "artifact.py"):
            (old / "code" / name).write_text("raise AssertionError")
        archive = pack(old, tmp_path / "packed/model.tar.gz")
        results = run(
            tmp_path / "out", dataset / "test", challenger=challenger, champion=archive, latency_images=0
        )
        assert results.predictions == compared.predictions


class TestClasses:
    def test_a_class_added_and_a_class_removed(self, dataset: Path, challenger: Path, tmp_path: Path) -> None:
        older = (*NAMES[:2], "000.Old_ring")
        champion = save_random_model(tmp_path / "older", 1, older)
        results = run(tmp_path, dataset / "test", challenger=challenger, champion=champion, latency_images=0)
        document = results.document
        assert document["classes"] == {
            "union": ["000.Old_ring", *NAMES],
            "common": list(NAMES[:2]),
            "only_challenger": [NAMES[2]],
            "only_champion": ["000.Old_ring"],
            "without_images": ["000.Old_ring"],
        }
        recall = {row["class"]: row for row in document["comparison"]["recall"]}
        assert recall[NAMES[2]]["known_to"] == "challenger"
        assert recall[NAMES[2]]["champion"] == 0
        assert recall["000.Old_ring"]["known_to"] == "champion"
        assert recall["000.Old_ring"]["difference"] is None
        assert recall["000.Old_ring"]["interval"] == [None, None]
        assert document["comparison"]["accuracy_on_common_classes"]["images"] == 10
        assert document["models"]["champion"]["per_class"][3] | {"precision": None} == {
            "class": NAMES[2], "label": "Blue box", "known": False, "support": 5, "recall": 0.0,
            "precision": None, "f1": 0.0,
        }  # fmt: skip

    def test_a_class_that_no_model_knows(self, own_dataset: Path, champion: Path, tmp_path: Path) -> None:
        (own_dataset / "test" / NAMES[0]).rename(own_dataset / "test/009.Wolf")
        with pytest.raises(DatasetValueError, match=r"no model knows: 009\.Wolf"):
            run(tmp_path, own_dataset / "test", challenger=champion)


class TestRefusals:
    def test_a_champion_that_is_not_there(self, dataset: Path, champion: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelValueError, match=r"champion in .*nowhere cannot be read.*does not exist"):
            run(tmp_path, dataset / "test", challenger=champion, champion=tmp_path / "nowhere")

    def test_a_champion_cut_off(
        self, dataset: Path, champion: Path, challenger: Path, tmp_path: Path
    ) -> None:
        cut = tmp_path / "model.tar.gz"
        cut.write_bytes(challenger.read_bytes()[:5000])
        with pytest.raises(ModelValueError, match=r"champion in .*model\.tar\.gz cannot be read"):
            run(tmp_path, dataset / "test", challenger=champion, champion=cut)

    def test_weights_of_another_architecture(self, dataset: Path, champion: Path, tmp_path: Path) -> None:
        broken = save_random_model(tmp_path / "broken", 1)
        card = json.loads((broken / "model.json").read_text())
        (broken / "model.json").write_text(json.dumps(card | {"classes": card["classes"][:2]}))
        with pytest.raises(ModelValueError, match=r"champion in .*broken cannot be read: .*size mismatch"):
            run(tmp_path, dataset / "test", challenger=champion, champion=broken)

    def test_scores_that_are_no_numbers(self, dataset: Path, tmp_path: Path) -> None:
        network = build("squeezenet1_1", 3, 32)
        state = {name: torch.full_like(value, torch.nan) for name, value in network.state_dict().items()}
        save_model(state, ModelCard("squeezenet1_1", NAMES, 32), tmp_path / "nan")
        with pytest.raises(ModelValueError, match="scores for 15 of 15 test images are not finite"):
            run(tmp_path, dataset / "test", challenger=tmp_path / "nan")

    def test_an_archive_cannot_write_elsewhere(self, dataset: Path, champion: Path, tmp_path: Path) -> None:
        archive = tmp_path / "evil.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            link = tarfile.TarInfo("model.safetensors")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(link)
            escape = tarfile.TarInfo("../../escaped")
            escape.size = 1
            tar.addfile(escape, io.BytesIO(b"x"))
            tar.add(champion / "model.json", "model.json")
        with pytest.raises(ModelValueError, match=r"evil\.tar\.gz holds no model\.safetensors"):
            run(tmp_path / "out", dataset / "test", challenger=archive)
        assert not list(tmp_path.rglob("escaped"))

    @pytest.mark.parametrize(
        ("kind", "size", "words"),
        [
            (tarfile.REGTYPE, 2**50, "says that it has 1125899906842624 bytes"),
            (tarfile.XHDTYPE, 2**40, "says that it has 1099511627776 bytes"),
            (tarfile.GNUTYPE_LONGNAME, 2**40, "says that it has 1099511627776 bytes"),
            (tarfile.REGTYPE, -512, "says that it has -512 bytes"),
        ],
    )
    def test_an_archive_s_size_is_bounded(
        self, dataset: Path, tmp_path: Path, kind: bytes, size: int, words: str
    ) -> None:
        member = tarfile.TarInfo("model.safetensors")
        member.type, member.size = kind, size
        bomb = tmp_path / "bomb.tar.gz"
        bomb.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
        with pytest.raises(ModelValueError, match=rf"bomb\.tar\.gz cannot be read: .*{words}"):
            run(tmp_path / "out", dataset / "test", challenger=bomb)

    def test_no_test_split(self, dataset: Path, champion: Path, tmp_path: Path) -> None:
        with pytest.raises(DatasetValueError, match=r"test split is missing: .*absent is not a folder"):
            run(tmp_path, dataset / "absent", challenger=champion)

    def test_an_empty_class(self, own_dataset: Path, champion: Path, tmp_path: Path) -> None:
        for file in (own_dataset / "test" / NAMES[1]).iterdir():
            file.unlink()
        with pytest.raises(DatasetValueError, match=r"class folder '002\.Green_bar' is empty"):
            run(tmp_path, own_dataset / "test", challenger=champion)

    def test_a_damaged_image(self, own_dataset: Path, champion: Path, tmp_path: Path) -> None:
        broken = own_dataset / "test" / NAMES[1] / "000.jpg"
        broken.write_bytes(broken.read_bytes()[:-300])
        with pytest.raises(DatasetValueError, match=r"test/002\.Green_bar/000\.jpg is damaged or cut off"):
            run(tmp_path / "out", own_dataset / "test", challenger=champion)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "wrong", [{"confidence": 1}, {"bootstrap-samples": 10}, {"batch-size": "many"}, {"champ": "x"}]
    )
    def test_wrong_options(
        self, dataset: Path, tmp_path: Path, wrong: Mapping[str, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            run(tmp_path, dataset / "test", **wrong)
        assert f"--{next(iter(wrong))}" in capsys.readouterr().err


class TestProcessingJob:
    """The folders of a processing job are the defaults."""

    @pytest.fixture
    def processing(
        self, tmp_path: Path, dataset: Path, challenger: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        inputs = tmp_path / "opt_ml/processing/input"
        (inputs / "challenger").mkdir(parents=True)
        (inputs / "challenger/model.tar.gz").symlink_to(challenger)
        (inputs / "test").symlink_to(dataset / "test")
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "opt_ml"))
        return tmp_path / "opt_ml/processing"

    def test_no_champion_input_means_no_champion(self, processing: Path) -> None:
        evaluate.main(["--latency-images", "0", "--bootstrap-samples", "100"])
        assert Results(processing / "output").document["comparison"] is None

    def test_an_empty_champion_input_is_an_error(self, processing: Path) -> None:
        (processing / "input/champion").mkdir()
        with pytest.raises(InputValueError, match=r"the champion in .*must hold model\.tar\.gz"):
            evaluate.main(["--latency-images", "0"])

    def test_a_failure_leaves_its_reason(self, processing: Path) -> None:
        (processing / "input/champion").mkdir()
        outcome = subprocess.run(
            [sys.executable, str(SOURCE / "evaluate.py")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert outcome.returncode == 1
        message = (processing.parent / "output/message").read_text()
        assert message.startswith("ModelValueError: the champion in")
        assert message in outcome.stderr
        assert "Traceback" not in outcome.stderr


def test_kept_images_are_of_every_class_and_have_predictions(
    dataset: Path, champion: Path, tmp_path: Path
) -> None:
    results = run(tmp_path, dataset / "test", challenger=champion, latency_images=0, kept_images=7)
    kept = {file.relative_to(tmp_path / "images").as_posix() for file in (tmp_path / "images").rglob("*.jpg")}
    assert len(kept) == 7
    assert Counter(key.partition("/")[0] for key in kept).most_common()[-1][1] == 2
    assert kept < {row["key"] for row in results.predictions}
    key = min(kept)
    assert (tmp_path / "images" / key).read_bytes() == (dataset / "test" / key).read_bytes()


def test_a_sample_is_spread_over_the_files_of_a_class_and_always_the_same() -> None:
    keys = [f"{label}/{n:03}.jpg" for label in "abc" for n in range(50)]
    kept = sample(keys, 30)
    assert kept == sample(keys[::-1], 30)
    numbers = sorted(int(key[2:5]) for key in kept if key.startswith("a/"))
    assert len(numbers) == 10
    assert max(after - before for before, after in pairwise(numbers)) <= 9
    assert sorted(sample(keys, 1000)) == keys
    assert sample([], 5) == []
