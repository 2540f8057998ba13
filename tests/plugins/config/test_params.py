"""The trigger form: its fields, and the check of the values against each other."""

from __future__ import annotations

import pytest
from retraining.config.params import form
from retraining.config.pipeline import Pipeline
from retraining.errors import ParametersError

from tests.plugins.conftest import MakeSettings


def test_every_field_is_described_and_has_a_section(pipeline: Pipeline) -> None:
    for name, field in form(pipeline).items():
        assert field.description, name
        assert field.schema.get("title"), name
        assert field.schema.get("section"), name
        field.resolve()


def test_numbers_have_limits_and_choices_have_lists(pipeline: Pipeline) -> None:
    for name, field in form(pipeline).items():
        if field.schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= field.schema.keys(), name
    assert "enum" in form(pipeline)["trainable"].schema


def test_the_defaults_are_the_pipelines(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    settings = make_settings()
    assert (settings.epochs_min, settings.epochs_max) == (5, 10)
    assert settings.max_jobs == pipeline.tuning.max_jobs
    assert settings.dataset_prefix == "datasets/dog_breed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs_min": 9, "epochs_max": 3}, "epochs_min 9 is above epochs_max 3"),
        ({"max_parallel_jobs": 5, "max_jobs": 2}, "max_parallel_jobs 5 is above max_jobs 2"),
        ({"dataset_prefix": "s3:/bucket"}, "write s3://bucket/prefix"),
    ],
)
def test_contradictions_are_refused(
    make_settings: MakeSettings, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParametersError, match=message):
        make_settings(**changes)


def test_parallel_trials_do_not_matter_without_tuning(make_settings: MakeSettings) -> None:
    assert make_settings(max_parallel_jobs=5, max_jobs=2, skip_tuning=True).skip_tuning
