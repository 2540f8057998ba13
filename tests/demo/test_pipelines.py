"""Which pipeline a command is about."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from demo import pipelines
from demo.pipelines import SAMPLE, create, file_of, name_for, names_of
from demo.run import Demo, chosen_pipeline
from demo.settings import ROOT, Choice, DemoError, Settings


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("birds", "birds"),
        ("My Birds (2024)", "my_birds_2024"),
        ("2024-birds", "data_2024_birds"),
        ("鳥", "data"),
    ],
)
def test_data_has_a_pipeline_of_its_folder_s_name(folder: str, name: str) -> None:
    assert name_for(Path("/data") / folder) == name


def test_the_sample_s_names_are_those_of_its_file() -> None:
    assert names_of(SAMPLE.pipeline) == SAMPLE


def test_a_pipeline_without_a_file_is_named_with_those_that_there_are() -> None:
    with pytest.raises(DemoError, match=r"no dags/pipelines/cats\.yaml\. There are: .*dog_breed.*NAME=cats"):
        names_of("cats")


def test_a_name_that_no_pipeline_can_have_is_refused() -> None:
    with pytest.raises(DemoError, match="the name '9 lives': name: "):
        create("9 lives")
    assert not list((ROOT / "dags" / "pipelines").glob("*9*"))


def demo(choice: Choice) -> Demo:
    return Demo(Settings(Path("unused")), choice, Console(file=StringIO(), width=200))


def test_data_never_goes_to_the_sample_s_pipeline_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def create_elsewhere(name: str) -> Path:
        made.append(name)
        return file_of(SAMPLE.pipeline)

    monkeypatch.setattr("demo.run.create", create_elsewhere)
    monkeypatch.setattr("demo.run.names_of", lambda name: pipelines.Names(name, "", "", "", ""))
    assert chosen_pipeline(demo(Choice())) == SAMPLE
    assert chosen_pipeline(demo(Choice(tmp_path / "birds"))).pipeline == "birds"
    assert chosen_pipeline(demo(Choice(tmp_path / "birds", pipeline="dog_breed"))).pipeline == "dog_breed"
    assert chosen_pipeline(demo(Choice(pipeline="fish"))).pipeline == "fish"
    assert made == ["birds"]
