"""Plans of the dog breed pipeline for tests: form values by keyword, pipeline values in `of`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.runs.context import RunLocation
from retraining.runs.results import Plan

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import MakeSettings

RUN = "dog-breed-2611220640-3fa9"
DATASET = {
    "uri": f"s3://{BUCKET}/datasets/dog_breed",
    "digest": "5e" * 32,
    "manifest": f"s3://{BUCKET}/manifest",
    "images": {"train": 1},
    "left_out": None,
}
SCRIPT = "print('train')"

MakePlan = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The training script that plans pack."""
    monkeypatch.setenv("RETRAINING_SOURCE_DIR", str(tmp_path))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    return script


@pytest.fixture
def make_plan(pipeline: Pipeline, make_settings: MakeSettings, aws: Aws, source: Path) -> MakePlan:
    """A plan; `last` is what an earlier run left, `dataset` what is known of the data."""
    from retraining.planning.plan import plan_run

    def make(
        of: dict[str, Any] | None = None,
        *,
        last: Any = None,
        run: str = RUN,
        dataset: Any = DATASET,
        **form: Any,
    ) -> Plan:
        changed = Pipeline.model_validate({**pipeline.model_dump(), **(of or {})})
        settings = make_settings(**form)
        location = RunLocation(settings.bucket or BUCKET, changed.name, run)
        return plan_run(changed, settings, dataset, aws, location, run_id="manual__1", last=last)

    return make
