"""Faults of the serving code that no test set shows: the model is as good as ever, its service is not."""

from __future__ import annotations

import shutil
from pathlib import Path

IMPORT = """

from classifier.prediction import Classifier

_right = Classifier.predict_tensors
"""

FAULTS = {
    "fails to load": """

def _load(model_dir):
    raise RuntimeError("drill: this model does not load")


Classifier.load = _load
""",
    "is slow": """

def _predict(self, batch):
    import time

    time.sleep({slow_seconds})
    return _right(self, batch)


Classifier.predict_tensors = _predict
""",
    "responds with 5xx": """

def _predict(self, batch):
    raise RuntimeError("drill: this model fails every request")


Classifier.predict_tensors = _predict
""",
    "predicts wrongly": """
import dataclasses


def _shifted(prediction):
    classes, probabilities = zip(*prediction.classes)
    shifted = list(zip(classes[1:] + classes[:1], probabilities))
    return dataclasses.replace(prediction, classes=shifted)


def _predict(self, batch):
    return [_shifted(prediction) for prediction in _right(self, batch)]


Classifier.predict_tensors = _predict
""",
}
"""Python that is appended to deployment.py, by what the model then does."""

SLOW_SECONDS = 3.0


def write_source(original: Path, folder: Path, fault: str | None) -> None:
    """Make `folder` a copy of the container's code, with a fault in it or without."""
    partial = folder.with_suffix(".new")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(original, partial, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if fault is not None:
        with (partial / "deployment.py").open("a") as script:
            script.write(IMPORT + FAULTS[fault].replace("{slow_seconds}", str(SLOW_SECONDS)))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
