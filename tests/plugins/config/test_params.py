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
        assert field.description.endswith("."), name
        assert "Default: " in field.description, name
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
        ({"lr": 0.1, "batch_size": 16}, "lr, batch_size: set skip_tuning, too"),
        (
            {"arch": "resnet5"},
            r"'resnet5' is no classification model of torchvision \(did you mean 'resnet50'",
        ),
        ({"dataset_prefix": "s3:/bucket"}, "write s3://bucket/prefix"),
    ],
)
def test_contradictions_are_refused(
    make_settings: MakeSettings, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParametersError, match=message):
        make_settings(**changes)


def test_limits_and_defaults_are_in_the_descriptions(pipeline: Pipeline) -> None:
    fields = form(pipeline)
    assert str(fields["max_jobs"].description).endswith(
        f" From 1 to 750. Default: {pipeline.tuning.max_jobs}."
    )
    assert str(fields["lr"].description).endswith(" Above 0, at most 10. Default: empty.")
    assert str(fields["force"].description).endswith(" Default: no.")


def test_only_the_fields_of_the_run_itself_are_open(pipeline: Pipeline) -> None:
    opened = [name for name, field in form(pipeline).items() if not field.schema.get("section")]
    assert opened == ["force", "max_cost_usd", "spot"]
