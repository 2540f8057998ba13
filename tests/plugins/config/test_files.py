"""New pipeline files, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from retraining.config.files import FOLDER, REFERENCE, SCHEMA, create, names, schema_text
from retraining.config.pipeline import PipelineFileError, load_pipeline
from retraining.config.reference import reference

SAMPLE = FOLDER / "dog_breed.yaml"


def test_the_schema_is_that_of_the_model() -> None:
    assert (FOLDER / SCHEMA).read_text() == schema_text(), "run: make pipeline-schema"


def test_the_reference_is_that_of_the_model() -> None:
    assert REFERENCE.read_text() == reference(), "run: make pipeline-schema"
    assert "| `gate.max_class_regression` | `0.2` | Recall that any class may lose" in reference()


def errors(content: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    return [error.message for error in validator.iter_errors(content)]


def test_the_schema_takes_the_files_and_finds_mistakes() -> None:
    content = yaml.safe_load(SAMPLE.read_text())
    assert errors(content) == []
    [message] = errors({**content, "tunning": {}})
    assert "'tunning' was unexpected" in message
    assert errors({**content, "name": "Dogs"})
    assert errors({**content, "gate": {"min_accuracy": 2}})


def test_a_new_file_is_the_sample_s_under_another_name(tmp_path: Path) -> None:
    path = create("birds", tmp_path)
    birds, dogs = load_pipeline(path), load_pipeline(SAMPLE)
    changed = {"name": "birds", "description": birds.description}
    assert birds.model_dump() == {**dogs.model_dump(), **changed}
    assert path.read_text().startswith(f"# yaml-language-server: $schema={SCHEMA}\n")
    assert "birds" in birds.description
    with pytest.raises(PipelineFileError, match="is there already"):
        create("birds", tmp_path)


@pytest.mark.parametrize("name", ["", "Birds", "../birds", "a b", "birds\nname: x"])
def test_a_name_that_no_pipeline_can_have_leaves_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    with pytest.raises(PipelineFileError, match="the name"):
        create(name, folder)
    assert list(tmp_path.rglob("*")) == [folder]


def test_names_follow_from_the_file(tmp_path: Path) -> None:
    path = create("birds", tmp_path)
    assert names("birds", tmp_path)["dataset"] == "datasets/birds"
    path.write_text(path.read_text() + "\ndataset: {prefix: s3://lake/birds/v2/}\n")
    found = names("birds", tmp_path)
    assert (found["bucket"], found["dataset"], found["endpoint"]) == ("lake", "birds/v2", "birds")
