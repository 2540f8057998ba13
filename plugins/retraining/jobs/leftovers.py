"""Jobs that outlived their run: a kill or a time-out while no triggerer ran leaves them to the next run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from retraining.aws.clients import Aws
from retraining.aws.tags import tags_of
from retraining.jobs.kinds import PROCESSING, TRAINING, TUNING, JobKind
from retraining.runs.naming import RUN_ID_TAG, run_beginning, run_pattern

log = logging.getLogger(__name__)

OVER = frozenset({"success", "failed"})


def stop_leftovers(aws: Aws, slug: str, run: str, state_of: Callable[[str], str | None]) -> list[str]:
    """Stop what runs for earlier runs of a pipeline, whose DAG runs are over; their names.

    `run` is the current run's name. `state_of` gives the state of the DAG run with an id, None where it
    cannot be told: such a job is left alone, and named in the log, as is everything if AWS refuses to tell.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    stopped: list[str] = []
    try:
        for kind in (TUNING, TRAINING, PROCESSING):
            for name, run_id in _running(aws, kind, slug, run):
                state = state_of(run_id) if run_id else None
                if state in OVER:
                    log.warning("Stopping the %s %s: its run %s is over (%s)", kind.noun, name, run_id, state)
                    kind.stop(aws, name)
                    stopped.append(name)
                elif state is None:
                    log.warning("The %s %s is running, and nothing says for which run", kind.noun, name)
    except (ClientError, BotoCoreError) as error:
        log.warning("Jobs that outlived their runs were not looked for: %s", error)
    return stopped


def _running(aws: Aws, kind: JobKind, slug: str, run: str) -> Iterator[tuple[str, str | None]]:
    """Names of the running jobs of the pipeline's other runs, with the ids of their DAG runs.

    Trials of a tuning job are not among them: they end with it.
    """
    pattern = run_pattern(slug)
    pages = aws.sagemaker.get_paginator(f"list_{kind.operation}s").paginate(  # type: ignore[call-overload]
        NameContains=run_beginning(slug), StatusEquals="InProgress"
    )
    summaries: Iterator[Mapping[str, Any]] = (job for page in pages for job in page[kind.summaries])
    for summary in summaries:
        name = summary[kind.name]
        if pattern.fullmatch(name) and not name.startswith(run):
            arn = summary[kind.name.removesuffix("Name") + "Arn"]
            yield name, tags_of(aws, arn).get(RUN_ID_TAG)
