"""The run's report: the record, the page in S3, and the summary, wherever the run ended."""

from __future__ import annotations

import io
import json
import re
import tarfile
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from PIL import Image
from retraining.aws.clients import Aws
from retraining.aws.s3 import read, read_json, write, write_json
from retraining.config.pipeline import Pipeline
from retraining.costs.estimate import estimate
from retraining.errors import UserError
from retraining.reporting.report import run_report
from retraining.runs.context import RunLocation
from retraining.runs.results import RunReport

from tests.browser import chromium
from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import MakeSettings, image_bytes
from tests.plugins.evaluations import evaluation_document

NAME = "dog-breed-2611220640-3fa9"
EVIL = "<script>alert('&')</script>"
CLASSES = ["001.Red", "002.Blue", EVIL]
RIGHT = dict.fromkeys(CLASSES, 8)
REJECTED = {
    "approved": False,
    "sentence": "The champion stays: 002.Blue lost 30 points of recall.",
    "champion": True,
    "checks": [
        {"name": "class regression", "passed": False, "value": 0.3, "threshold": 0.2, "text": EVIL},
        {"name": "rules", "passed": True, "value": None, "threshold": None, "text": "none blocks"},
    ],
    "figures": {"challenger": {"accuracy": 0.8}, "champion": {"accuracy": 0.79}},
}
STATES = dict.fromkeys(["check_dataset", "plan", "verify"], "success")


class Page(HTMLParser):
    """Collects a page's elements and the addresses in them, and checks that they are closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href"} and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    return content.getvalue()


def archive(metrics: dict[str, Any]) -> bytes:
    content, text = io.BytesIO(), json.dumps(metrics).encode()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo("metrics.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return content.getvalue()


def epoch(number: int) -> dict[str, float]:
    return {
        "epoch": number,
        "train_loss": 1 / number,
        "train_accuracy": 1 - 0.5 / number,
        "valid_loss": 1.1 / number,
        "valid_accuracy": 1 - 0.6 / number,
    }


@pytest.fixture(scope="session")
def results(pipeline: Pipeline) -> dict[str, Any]:
    """What the tasks of a whole run return."""
    training_output = f"s3://{BUCKET}/retraining/dog_breed/{NAME}/training"
    trials = [
        {
            "name": f"trial-{n}",
            "status": "Completed",
            "objective": objective,
            "seconds": 60.0,
            "hyperparameters": {"lr": "0.1", "momentum": "0.9"},
        }
        for n, objective in enumerate([0.5, 0.7, None])
    ]
    return {
        "dataset": {
            "uri": f"s3://{BUCKET}/data",
            "bucket": BUCKET,
            "prefix": "data",
            "digest": "5e" * 32,
            "manifest": f"s3://{BUCKET}/manifest",
            "classes": CLASSES,
            "images": {"train": 20, "valid": 10, "test": 10},
            "counts": {},
            "warnings": [f"{EVIL} is small"],
            "changes": {
                "since": "dog-breed-2611150640-1111",
                "added": 3,
                "removed": 0,
                "changed": 0,
                "classes": {EVIL: {"added": 3, "removed": 0, "changed": 0}},
            },
            "report": f"s3://{BUCKET}/data.html",
            "report_url": "http://s3/data.html?X-Amz-Signature=5e5e",
        },
        "tuning": {
            "job": NAME,
            "status": "Completed",
            "seconds": 180,
            "objective": "valid:accuracy",
            "trials": trials,
            "best": trials[1],
        },
        "training": {
            "job": NAME,
            "status": "Completed",
            "seconds": 100.0,
            "billable_seconds": 100,
            "metrics": {"test:accuracy": 0.8},
            "hyperparameters": {"lr": "0.1", "sagemaker_program": "train.py"},
            "model_artifact": "s3://bucket/model.tar.gz",
            "arn": "arn",
            "output": training_output,
            "Training": {"OutputDataConfig": {"S3OutputPath": training_output}, "much": "more"},
        },
        "debugger": {
            "mode": "service",
            "rules": [
                {
                    "rule": "Overfit",
                    "policy": "warn",
                    "verdict": "warning",
                    "status": "IssuesFound",
                    "step": 30,
                    "finding": EVIL,
                    "advice": "stop earlier",
                    "details": "",
                }
            ],
            "blocking": [],
            "report": f"s3://{BUCKET}/profiler.html",
            "report_url": "http://s3/profiler.html?X-Amz-Signature=5e5e",
        },
        "evaluation": {
            "job": NAME,
            "status": "Completed",
            "seconds": 30.0,
            "output": f"s3://{BUCKET}/retraining/dog_breed/{NAME}/evaluation",
            "challenger": "s3://bucket/model.tar.gz",
            "champion": None,
            "replaces": "dog-breed-old",
        },
        "gate": {**REJECTED, "approved": True, "sentence": "The challenger goes live."},
        "package": {"group": "dog-breed", "version": 3, "arn": "arn", "status": "Approved"},
        "approval": {"approved": True, "sentence": "Not asked for.", "by": None, "at": None},
        "endpoint": {
            "name": "dog-breed",
            "config": NAME,
            "model": NAME,
            "status": "InService",
            "seconds": 12.0,
            "created": False,
            "previous": "dog-breed-old",
        },
        "verification": {
            "endpoint": "dog-breed",
            "config": NAME,
            "images": 10,
            "compared": 0,
            "accuracy": 0.8,
            "trained_accuracy": 0.8,
            "agreement": None,
            "max_probability_difference": None,
            "latency_ms": {"median": 12.0, "p95": 20.0, "max": 30.0},
            "predictions": [
                {"image": f"s3://{BUCKET}/{name}", "class": EVIL, "predicted": "001.Red", "probability": 0.6}
                for name in ("thumb.jpg", "missing.jpg", "broken.jpg")
            ],
        },
        "retired": {"models": ["old"], "configs": [], "folders": [], "packages": [], "kept": {}},
    }


@pytest.fixture
def plan(pipeline: Pipeline, make_settings: MakeSettings) -> dict[str, Any]:
    routing = {
        "Type": "CANARY",
        "WaitIntervalInSeconds": 300,
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
    }
    return {
        "run": {
            "name": NAME,
            "run_id": "manual__1",
            "pipeline": "dog_breed",
            "region": "us-east-1",
            "code": "s3://bucket/code.tar.gz",
            "output": f"s3://{BUCKET}/retraining/dog_breed/{NAME}",
            "weights": None,
            "cost": estimate(pipeline, make_settings(), "us-east-1"),
        },
        "tuning": {
            "HyperParameterTuningJobName": NAME,
            "HyperParameterTuningJobConfig": {"HyperParameterTuningJobObjective": {"Type": "Maximize"}},
        },
        "training": {"TrainingJobName": NAME},
        "evaluation": {"ProcessingJobName": NAME},
        "deployment": {
            "Endpoint": {
                "DeploymentConfig": {
                    "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
                    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "dog-breed-5xx"}]},
                }
            }
        },
    }


@pytest.fixture
def location() -> RunLocation:
    return RunLocation(BUCKET, "dog_breed", NAME)


def reported(
    aws: Aws,
    location: RunLocation,
    results: dict[str, Any],
    *,
    states: dict[str, str] = STATES,
    reasons: dict[str, str] | None = None,
    run_url: str | None = None,
) -> RunReport:
    """The report of a run with these results of its tasks."""
    known: Any = results
    return run_report(aws, location, known, states=states, reasons=reasons or {}, run_url=run_url)


def page_of(aws: Aws, report: RunReport) -> str:
    content = read(aws.s3, report["report"])
    assert content is not None
    page = Page(content.decode())
    assert page.open == []
    assert "script" not in page.tags
    return content.decode()


def test_a_whole_run(aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]) -> None:
    write(
        aws.s3,
        f"{location.output}/training/{NAME}/output/output.tar.gz",
        archive({"history": [epoch(1), epoch(2)]}),
    )
    document: Any = evaluation_document(RIGHT, {**RIGHT, EVIL: 7})
    document["comparison"]["macro_f1"] = document["comparison"]["accuracy"]
    write_json(aws.s3, f"{location.output}/evaluation/evaluation.json", document)
    write(aws.s3, f"{location.output}/evaluation/confusion_matrix.png", png())
    write(aws.s3, f"s3://{BUCKET}/thumb.jpg", image_bytes())
    write(aws.s3, f"s3://{BUCKET}/broken.jpg", b"no image")
    report = reported(aws, location, {**results, "plan": plan}, run_url="http://airflow/run")

    assert report["run_name"] == NAME
    assert report["test_accuracy"] == 0.8
    assert report["hyperparameters"] == {"lr": "0.1"}
    assert report["tuning"] == results["tuning"]
    assert report["verification"] == results["verification"]
    assert report["endpoint"] == results["endpoint"]
    assert report["training"] is not None
    assert "Training" not in report["training"]
    assert report["debugger"] is not None
    assert report["debugger"].keys() == {"mode", "rules", "report"}
    assert report["outcome"]["verdict"] == "live"
    assert report["strategy"] == {
        "text": "canary, 10% at a time, alarms watch for 5 min",
        "alarms": ["dog-breed-5xx"],
    }
    assert [row["job"] for row in report["cost"]["actual"]["jobs"]] == [
        "trial-0",
        "trial-1",
        "trial-2",
        NAME,
        NAME,
    ]
    assert read_json(aws.s3, report["record"]) == {k: v for k, v in report.items() if k != "report_url"}
    record = read(aws.s3, report["record"])
    assert record is not None
    assert b"Signature" not in record
    assert httpx.get(report["report_url"]).headers["content-type"].startswith("text/html")

    text = page_of(aws, report)
    assert "alert(&#39;&amp;&#39;)" in text
    for expected in (
        "The challenger goes live.",
        "Confusion matrix",
        "dog-breed-old",
        "canary, 10%",
        "+3.3 pt",
    ):
        assert expected in text
    assert text.count("<svg") == 2
    assert text.count("data:image/png;base64") == 1
    assert text.count("data:image/jpeg;base64") == 1


def test_the_page_needs_nothing_beside_it(
    aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]
) -> None:
    text = page_of(aws, reported(aws, location, {**results, "plan": plan}))
    page = Page(text)
    loaded = [a for a in page.addresses if not a.startswith(("#", "data:"))]
    assert all(a.startswith("http://127.0.0.1") and ".html?" in a for a in loaded)
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_page_and_its_links_open_in_a_browser(
    aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]
) -> None:
    write(aws.s3, f"{location.output}/evaluation/confusion_matrix.png", png())
    write(aws.s3, location.dataset_report, b"<title>The dataset</title>", "text/html")
    report = reported(aws, location, {**results, "plan": plan}, run_url="http://127.0.0.1:1/run")
    with chromium() as browser, browser.new_context() as context:
        page = context.new_page()
        opened = page.goto(report["report_url"])
        assert opened is not None
        assert (opened.status, page.evaluate("self.origin")) == (200, "null")
        assert page.title().startswith(NAME)
        assert page.evaluate("document.images.length") > 0
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("getComputedStyle(document.querySelector('section')).borderRadius") == "12px"
        page.click("text=Dataset report")
        page.wait_for_function("document.title === 'The dataset'")
        page.go_back()
        with context.expect_page() as another:
            page.click("text=Dataset report", modifiers=["Control"])
        another.value.wait_for_function("document.title === 'The dataset'")


def test_a_run_that_ended_anywhere_has_a_page(
    aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]
) -> None:
    """One more task's result at a time, in the order of the tasks."""
    known: dict[str, Any] = {}
    for name, result in {"dataset": results["dataset"], "plan": plan, **results}.items():
        report = reported(aws, location, known, states={"train": "failed"}, reasons={"train": EVIL})
        assert report["outcome"]["verdict"] == "failed"
        text = page_of(aws, report)
        assert "The run failed at train" in text
        assert EVIL not in text
        known[name] = result


def test_the_report_of_a_rejected_dataset_is_linked(aws: Aws) -> None:
    location = RunLocation(BUCKET, "dog_breed", "refused")
    write(aws.s3, f"{location.output}/dataset/report.html", b"<p>three files</p>")
    report = reported(aws, location, {}, states={"check_dataset": "failed"})
    assert "refused/dataset/report.html" in page_of(aws, report)


def test_a_rejected_challenger(
    aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]
) -> None:
    rest = {k: v for k, v in results.items() if k not in {"gate", "endpoint", "verification", "retired"}}
    report = reported(aws, location, {**rest, "plan": plan, "gate": REJECTED})
    assert report["outcome"]["label"] == "Champion stays"
    assert report["endpoint"] is None
    assert '<h2 id="deployment">' not in page_of(aws, report)


def test_a_run_without_tuning_says_so(
    aws: Aws, location: RunLocation, plan: dict[str, Any], results: dict[str, Any]
) -> None:
    report = reported(aws, location, {**results, "plan": {**plan, "tuning": None}, "tuning": None})
    assert report["tuning"] is None
    assert '<h2 id="tuning">' not in page_of(aws, report)


def test_a_first_model_has_no_champion(aws: Aws, plan: dict[str, Any], results: dict[str, Any]) -> None:
    location = RunLocation(BUCKET, "dog_breed", "first")
    evaluation = {**results["evaluation"], "output": f"{location.output}/evaluation"}
    write_json(aws.s3, f"{evaluation['output']}/evaluation.json", evaluation_document(RIGHT))
    text = page_of(aws, reported(aws, location, {**results, "plan": plan, "evaluation": evaluation}))
    assert "Weakest classes" in text
    assert "no champion" in text


def test_a_bucket_that_does_not_exist_is_an_error_of_the_user(aws: Aws) -> None:
    reasons = {"check_dataset": "There is no bucket nowhere-at-all."}
    location = RunLocation("nowhere-at-all", "dog_breed", NAME)
    with pytest.raises(UserError, match=r"no bucket nowhere-at-all .*failed at check_dataset"):
        reported(aws, location, {}, states={"check_dataset": "failed"}, reasons=reasons)


def test_damaged_material_is_left_out(
    aws: Aws, plan: dict[str, Any], results: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    location = RunLocation(BUCKET, "dog_breed", "damaged")
    output = f"{location.output}/training"
    write(aws.s3, f"{output}/{NAME}/output/output.tar.gz", b"no archive")
    write(aws.s3, f"{location.output}/evaluation/evaluation.json", b"{no json")
    training = {**results["training"], "output": output}
    evaluation = {**results["evaluation"], "output": f"{location.output}/evaluation"}
    report = reported(
        aws, location, {**results, "plan": plan, "training": training, "evaluation": evaluation}
    )
    assert "Challenger" not in page_of(aws, report)
    assert "output.tar.gz is left out of the report: ReadError" in caplog.text


def test_jobs_of_tasks_that_failed_are_paid_for(
    aws: Aws, location: RunLocation, plan: dict[str, Any]
) -> None:
    """Names that SageMaker does not know cost nothing; the lookup itself must not fail."""
    requests = {
        **plan,
        "tuning": {"HyperParameterTuningJobName": "never-started"},
        "training": {"TrainingJobName": "never-started"},
        "evaluation": {"ProcessingJobName": "never-started"},
    }
    report = reported(aws, location, {"plan": requests}, states={"tune": "failed"})
    assert report["cost"]["actual"]["jobs"] == []


def test_the_summary_is_short(
    aws: Aws,
    location: RunLocation,
    plan: dict[str, Any],
    results: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "retraining.reporting.report"):
        reported(aws, location, {**results, "plan": plan})
    text = caplog.text
    for expected in (
        f"## {NAME}: New model live",
        "**Accuracy**: 80.0%, champion 79.0%",
        "**Hyperparameters**: lr 0.1",
        "**Rules**: Overfit warning",
        "[Profiler report](http",
        "at most $4.95 by its limits",
    ):
        assert expected in text
