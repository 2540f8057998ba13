"""Pipeline files: what they hold, and what is said about those that are wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from retraining.config.pipeline import (
    BrokenPipeline,
    Pipeline,
    PipelineFileError,
    load_pipeline,
    load_pipelines,
)
from retraining.config.sections import Section
from retraining.runs.naming import TUNING_JOB_LIMIT, attempt_name, run_name

from tests.dags.airflow_home import REPOSITORY

DOG_BREED = REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the dog breed pipeline's file after a change of its content."""

    def write(change: Callable[[dict[str, Any]], object], name: str = "changed") -> Path:
        content = yaml.safe_load(DOG_BREED.read_text())
        change(content)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_dog_breed_searches_what_the_project_asks_for(pipeline: Pipeline) -> None:
    space = pipeline.tuning.search_space
    assert (space["lr"].min, space["lr"].max, space["lr"].type) == (0.01, 0.1, "continuous")  # type: ignore[union-attr]
    assert space["batch-size"].values == [32, 64]  # type: ignore[union-attr]
    assert (space["epochs"].min, space["epochs"].max, space["epochs"].type) == (5, 10, "integer")  # type: ignore[union-attr]
    assert (space["momentum"].min, space["momentum"].max) == (0.5, 0.9)  # type: ignore[union-attr]
    assert pipeline.tuning.strategy == "Bayesian"
    assert set(pipeline.rules) == {"VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization"}
    assert pipeline.dag_id == "dog_breed_retraining"
    assert pipeline.endpoint_name == "dog-breed"


def test_defaults_need_a_name_and_a_search_space_only(tmp_path: Path) -> None:
    path = tmp_path / "cats.yaml"
    path.write_text(
        "name: cats\nhyperparameters: {lr: 0.1}\n"
        "tuning: {search_space: {lr: {type: continuous, min: 0.01, max: 0.2}}}\n"
    )
    cats = load_pipeline(path)
    assert (cats.model.arch, cats.schedule, cats.endpoint_name) == ("resnet50", "@weekly", "cats")


def test_a_copy_under_another_name_has_an_endpoint_and_a_dataset_of_its_own(
    write: Callable[..., Path], pipeline: Pipeline
) -> None:
    copy = load_pipeline(write(lambda c: c.update(name="all_cats")))
    assert (copy.endpoint_name, copy.dataset_prefix) == ("all-cats", "datasets/all_cats")
    assert (pipeline.endpoint_name, pipeline.dataset_prefix) == ("dog-breed", "datasets/dog_breed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(tunning={}), "unknown key 'tunning' (did you mean 'tuning'?)"),
        (
            lambda c: c["tuning"].update(max_job=3),
            "unknown key 'tuning.max_job' (did you mean 'max_jobs'?)",
        ),
        (
            lambda c: c["tuning"]["search_space"]["lr"].update(maximum=1),
            "unknown key 'tuning.search_space.lr.continuous.maximum' (did you mean 'max'?)",
        ),
        (
            lambda c: c["rules"]["Overfit"].update(policyy="warn"),
            "unknown key 'rules.Overfit.policyy' (did you mean 'policy'?)",
        ),
        (
            lambda c: c["tuning"]["search_space"]["lr"].update(min=0.5),
            "search_space.lr: min 0.5 is not below max 0.1",
        ),
        (
            lambda c: c["tuning"]["search_space"]["momentum"].update(max=1.5),
            "search_space.momentum: 1.5 is outside [0, 0.999]",
        ),
        (
            lambda c: c["tuning"]["search_space"].update(momentun={"type": "categorical", "values": [0.5]}),
            "the training script has no hyperparameter 'momentun' (did you mean 'momentum'?)",
        ),
        (
            lambda c: c["hyperparameters"].update({"batch-size": 0}),
            "hyperparameters: batch-size: 0 is outside [1, 4096]",
        ),
        (lambda c: c["hyperparameters"].pop("lr"), "hyperparameters: lr missing; a run that skips tuning"),
        (lambda c: c["tuning"].update(strategy="Grid"), "Grid takes categorical ranges only"),
        (lambda c: c.update(job={"instance_type": "m5.xlarge"}), "job.instance_type: String should match"),
        (lambda c: c["rules"]["Overfit"].update(policy="stop"), "rules.Overfit.policy: Input should be"),
        (lambda c: c.pop("name"), "name: Field required"),
    ],
)
def test_a_wrong_file_is_named_with_key_and_fix(
    write: Callable[..., Path], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write(change)
    with pytest.raises(PipelineFileError) as caught:
        load_pipeline(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_every_problem_of_a_file_is_listed(write: Callable[..., Path]) -> None:
    path = write(lambda c: c.update(tunning={}, job={"volume": 3}))
    with pytest.raises(PipelineFileError, match=r"(?s)tunning.*job\.volume|job\.volume.*tunning"):
        load_pipeline(path)


@pytest.mark.parametrize("word", ["off", "'off'", "service", "in_job"])
def test_debugger_takes_a_bare_off(tmp_path: Path, word: str) -> None:
    path = tmp_path / "off.yaml"
    path.write_text(DOG_BREED.read_text().replace("# debugger: service", f"debugger: {word}"))
    assert load_pipeline(path).debugger == word.strip("'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not YAML"),
        (b"- a", "a mapping of keys is expected"),
        (b"a: 2026-02-30", "not YAML: day is out of range"),
        (b"a: !!timestamp x", "not YAML"),
        (b"a: \x80", "not YAML: .*can't decode"),
        (b"[" * 5000, "not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(PipelineFileError, match=message):
        load_pipeline(path)


def test_what_the_shipped_file_has_in_comments_are_the_defaults(tmp_path: Path, pipeline: Pipeline) -> None:
    key = re.compile(r"^(\s*)# ((?:  )*[a-z_0-9]+:.*)$", re.MULTILINE)
    path = tmp_path / "full.yaml"
    path.write_text(key.sub(r"\1\2", DOG_BREED.read_text()))
    full = load_pipeline(path)
    assert full == pipeline
    assert full.model_fields_set == set(Pipeline.model_fields)
    for name in full.model_fields_set:
        section = getattr(full, name)
        if isinstance(section, Section) and name != "notifications":
            assert section.model_fields_set == set(type(section).model_fields), name


def test_the_old_name_of_a_key_is_read_with_a_warning(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(lambda c: c.update(gate={"max_breed_regression": 0.1}))
    assert load_pipeline(path).gate.max_class_regression == 0.1
    assert "gate.max_breed_regression is now max_class_regression" in caplog.text
    both = write(lambda c: c.update(gate={"max_breed_regression": 0.1, "max_class_regression": 0.1}))
    with pytest.raises(PipelineFileError, match="max_breed_regression is the old name"):
        load_pipeline(both)


def test_two_files_cannot_have_one_name(write: Callable[..., Path]) -> None:
    first, second = write(dict, "one"), write(dict, "two")
    good, broken = load_pipelines(first.parent)
    assert isinstance(good, Pipeline)
    assert isinstance(broken, BrokenPipeline)
    assert (broken.name, "taken by another file" in broken.error) == ("two", True)
    assert str(second) in broken.error


def test_a_wrong_file_leaves_the_others(write: Callable[..., Path]) -> None:
    folder = write(lambda c: c.update(name="birds"), "birds").parent
    write(lambda c: c.update(name="cats", tunning={}), "felines")
    (folder / "empty.yaml").write_text("")
    (folder / "tab.yml").write_text("name: tab\n\tmodel: x\n")
    (folder / "9 lives.yaml").write_bytes(b"\x80")
    (folder / "gone.yaml").symlink_to("nowhere")
    found = {one.name: one for one in load_pipelines(folder)}
    assert isinstance(found.pop("birds"), Pipeline)
    assert found.keys() == {"cats", "empty", "tab", "9_lives", "gone"}
    for broken in found.values():
        assert isinstance(broken, BrokenPipeline)
        assert str(folder) in broken.error
    assert "'tunning' (did you mean 'tuning'?)" in found["cats"].error  # type: ignore[union-attr]


def test_a_task_reads_its_own_file_alone(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(lambda c: c.update(name="birds"), "birds")
    other = write(lambda c: c.update(name="other"), "fish")
    read: list[Path] = []

    def load(path: Path) -> Pipeline:
        read.append(path)
        return load_pipeline(path)

    monkeypatch.setattr("retraining.config.pipeline.load_pipeline", load)
    assert [one.name for one in load_pipelines(first.parent, "other")] == ["other"]
    assert read == [other]
    assert {one.name for one in load_pipelines(first.parent, "unknown")} == {"birds", "other"}


@pytest.mark.parametrize("schedule", ["0 6 * * 1", "@weekly", "@quarterly", "0 0 1 */3 *", None])
def test_a_schedule_is_cron(write: Callable[..., Path], schedule: str | None) -> None:
    assert load_pipeline(write(lambda c: c.update(schedule=schedule))).schedule == schedule


@pytest.mark.parametrize("schedule", ["weekly", "@never", "61 * * * *", "* * *", "every monday"])
def test_what_is_no_cron_is_refused(write: Callable[..., Path], schedule: str) -> None:
    with pytest.raises(PipelineFileError, match=r"schedule: .* is no cron expression"):
        load_pipeline(write(lambda c: c.update(schedule=schedule)))


@pytest.mark.parametrize("name", ["a", "dog_breed", "a__b", "a" * 63])
def test_a_name_fits_everything_that_is_made_from_it(write: Callable[..., Path], name: str) -> None:
    pipeline = load_pipeline(write(lambda c: c.update(name=name)))
    for one in (pipeline.slug, pipeline.package_group, pipeline.endpoint_name):
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", one)
    assert attempt_name(run_name(pipeline.slug, "manual", datetime.now(UTC)), 9, TUNING_JOB_LIMIT)


@pytest.mark.parametrize("name", ["a_", "_a", "Dogs", "1a", "a-b", "a" * 64, ""])
def test_a_name_that_does_not_is_refused(write: Callable[..., Path], name: str) -> None:
    with pytest.raises(PipelineFileError, match="name: "):
        load_pipeline(write(lambda c: c.update(name=name)))
