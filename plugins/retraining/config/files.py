"""Pipeline files from the command line, for make and for editors.

python -m retraining.config.files schema          writes the files' JSON Schema, and docs/pipeline.md
python -m retraining.config.files new birds       a file for another pipeline, like the sample's
python -m retraining.config.files names birds     what follows from a file, as JSON: DAGs, endpoint, prefix
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from retraining.aws.s3 import split_uri
from retraining.config.pipeline import Pipeline, PipelineFileError, load_pipeline

FOLDER = Path(__file__).parents[3] / "dags" / "pipelines"
SAMPLE = "dog_breed"
SCHEMA = "pipeline.schema.json"
REFERENCE = FOLDER.parents[1] / "docs" / "pipeline.md"

_HEAD = """\
# yaml-language-server: $schema={schema}
# The pipeline {name}: its DAGs are {name}_retraining and {name}_rollback. What is commented out is the
# default.
"""


def schema_text() -> str:
    """The JSON Schema of a pipeline file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Pipeline.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def create(name: str, folder: Path = FOLDER) -> Path:
    """A file for a pipeline of this name with the sample's values.

    Raises PipelineFileError for a name that cannot be used or is in use.
    """
    path = folder / f"{name}.yaml"
    if path.exists():
        raise PipelineFileError(f"{path} is there already: edit it, or choose another name")
    text = (FOLDER / f"{SAMPLE}.yaml").read_text(encoding="utf-8")
    body = text[text.index("\nname:") :].replace(f"name: {SAMPLE}", f"name: {name}", 1)
    description = f"Retrains the classifier {name} every week and puts the new model into service."
    body = re.sub(r"(?m)^description: .*$", f"description: {description}", body, count=1)
    draft = path.with_name(f".{path.name}")
    draft.write_text(_HEAD.format(schema=SCHEMA, name=name) + body, encoding="utf-8")
    try:
        load_pipeline(draft)
    except PipelineFileError as error:
        draft.unlink()
        raise PipelineFileError(f"the name {name!r}: {str(error).partition(': ')[2]}") from error
    return draft.rename(path)


def names(name: str, folder: Path = FOLDER) -> dict[str, str | None]:
    """What other programs need to know of a pipeline. Raises PipelineFileError."""
    pipeline = load_pipeline(folder / f"{name}.yaml")
    bucket, dataset = pipeline.bucket, pipeline.dataset_prefix
    if dataset.startswith("s3://"):
        bucket, dataset = split_uri(dataset)
    return {
        "pipeline": pipeline.name,
        "dag_id": pipeline.dag_id,
        "endpoint": pipeline.endpoint_name,
        "asset": pipeline.asset_name,
        "dataset": dataset.rstrip("/"),
        "bucket": bucket,
    }


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["schema"]:
            from retraining.config.reference import reference  # imports Airflow, which takes a second

            (FOLDER / SCHEMA).write_text(schema_text(), encoding="utf-8")
            REFERENCE.write_text(reference(), encoding="utf-8")
            print(FOLDER / SCHEMA, REFERENCE, sep="\n")
        case ["new", name]:
            print(create(name))
        case ["names", name]:
            print(json.dumps(names(name)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineFileError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
