"""What an instance writes about its requests, and the faults that the drills put into a model's code."""

import json
import queue
import time
from pathlib import Path

import pytest
import torch
from classifier import traffic
from classifier.prediction import Classifier
from classifier.requests import RequestError
from classifier.traffic import Traffic

from demo.drills.faults import FAULTS, IMPORT
from tests.sagemaker_code.containers import SOURCE
from tests.sagemaker_code.test_evaluate import save_random_model


def test_requests_failures_and_the_slowest_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAINING_MODEL", "dogs-2")
    seen = Traffic(interval_seconds=3600)
    assert seen.line() is None
    for error in (None, None, RequestError(400, "no image"), RuntimeError("broken")):
        try:
            with seen.request():
                if error:
                    raise error
        except (RequestError, RuntimeError):
            pass
    line = seen.line()
    assert line is not None
    assert line.startswith(traffic.MARK)
    document = json.loads(line.removeprefix(traffic.MARK))
    assert (document["model"], document["requests"], document["failed"]) == ("dogs-2", 4, 1)
    assert document["p99_ms"] >= 0
    assert seen.line() is None


def test_lines_are_written_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    written: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr("builtins.print", lambda line, **_: written.put(line))
    with Traffic(interval_seconds=0.01).request():
        pass
    assert '"requests": 1' in written.get(timeout=10)


def test_the_airflow_side_knows_mark_and_variable() -> None:
    reader = (SOURCE.parent / "plugins/retraining/deployment/blame.py").read_text()
    assert f'_MARK = "{traffic.MARK}"' in reader
    assert f'MODEL = "{traffic.MODEL}"' in reader


@pytest.mark.parametrize("fault", FAULTS)
def test_a_drills_fault_is_one(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_random_model(tmp_path, seed=1)
    batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    sound = Classifier.load(folder).predict_tensors(batch)
    for name in ("load", "predict_tensors"):
        monkeypatch.setattr(Classifier, name, vars(Classifier)[name])  # restored after the test
    exec(IMPORT + FAULTS[fault].replace("{slow_seconds}", "0.05"), {})  # noqa: S102
    if fault == "fails to load":
        with pytest.raises(RuntimeError, match="does not load"):
            Classifier.load(folder)
        return
    classifier, started = Classifier.load(folder), time.monotonic()
    classifier.warm_up()
    if fault == "responds with 5xx":
        with pytest.raises(RuntimeError, match="fails every request"):
            classifier.predict_tensors(batch)
        return
    found = classifier.predict_tensors(batch)
    if fault == "is slow":
        assert time.monotonic() - started > 0.05
        assert found == sound
    else:
        assert [one.classes[0][0] for one in found] == [one.classes[1][0] for one in sound]
