"""Pipeline files and values of the trigger form: run in Airflow's environment."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError
from hypothesis import strategies as st
from retraining.config.params import RunSettings, form
from retraining.config.pipeline import Pipeline, PipelineFileError, load_pipeline
from retraining.errors import ParametersError

from tests.fuzz.mutations import ODD_VALUES, damaged, mutated
from tests.fuzz.trying import Kind, main

SAMPLE = Path(__file__).parents[2] / "dags" / "pipelines" / "dog_breed.yaml"
YAML_PIECES = [
    "2026-02-30",
    "!!python/object/apply:os.system [id]",
    "*nothing",
    "&a [*a]",
    "{a: {b: {c: [1, 2",
    "\t- a",
    "1:2:3:4e5",
    ".inf",
    "0x",
    "!!binary x",
    "!!timestamp x",
    "<<: 1",
    "? [a]\n: b",
    "---\na: b\n---\n",
    "%YAML 9.9\n",
]


def kinds(_options: argparse.Namespace) -> Iterable[Kind]:
    sample = yaml.safe_load(SAMPLE.read_text())
    everything = Pipeline.model_validate(sample).model_dump(mode="json")
    documents = mutated(st.sampled_from([sample, everything]))
    yield Kind("pipeline files, values", documents.map(lambda one: yaml.safe_dump(one).encode()), check_file)
    pieces = st.sampled_from(YAML_PIECES).map(lambda piece: f"description: {piece}\n".encode())
    whole = SAMPLE.read_bytes()
    text = (
        damaged(st.just(whole)) | pieces.map(lambda piece: whole + piece) | st.binary(max_size=100) | pieces
    )
    yield Kind("pipeline files, text", text, check_file)

    fields = form(load_pipeline(SAMPLE))
    yield Kind("form values", _form_values(fields), lambda values: check_form(fields, values))


def check_file(content: bytes) -> bool:
    """Either a pipeline whose form has usable defaults, or an error that names the file."""
    refusal = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz.yaml"
        path.write_bytes(content)
        try:
            pipeline = load_pipeline(path)
        except PipelineFileError as error:
            refusal = str(error)
    if refusal:
        assert str(path) in refusal, f"the file is not named: {refusal}"
        return False
    check_form(form(pipeline), {})
    for name in (pipeline.dag_id, pipeline.slug, pipeline.package_group, pipeline.endpoint_name):
        assert name, "a name is empty"
    return True


def check_form(fields: Mapping[str, Param], values: Mapping[str, Any]) -> bool:
    """Either settings, or one of the errors that a form shows."""
    with suppress(ParamValidationError, ParametersError):
        resolved = {
            name: field.resolve(values[name]) if name in values else field.resolve()
            for name, field in fields.items()
        }
        RunSettings.from_params(resolved)
        return True
    return False


def _form_values(fields: Mapping[str, Param]) -> st.SearchStrategy[dict[str, Any]]:
    """Values that the fields allow one by one, and at most one that may be odd."""
    allowed = st.fixed_dictionaries({}, optional={name: _allowed(one.schema) for name, one in fields.items()})
    odd = st.dictionaries(st.sampled_from(sorted(fields)), ODD_VALUES, max_size=1)
    return st.builds(lambda one, other: {**one, **other}, allowed, odd)


def _allowed(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    low = int(schema.get("minimum", schema.get("exclusiveMinimum", 0)))
    texts = ["resnet18", "ml.m5.large", "my-bucket", "s3://bucket/prefix", "s3:/x", "head"]
    by_type: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "integer": st.integers(low, min(int(schema.get("maximum", low + 1000)), low + 1000)),
        "number": st.floats(low + 1, low + 100),
        "null": st.none(),
        "string": st.sampled_from(texts),
    }
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([by_type[name] for name in types])


if __name__ == "__main__":
    main(kinds)
