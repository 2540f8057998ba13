"""Faults of the serving code that no test set shows: the model is as good as ever, its service is not."""

from __future__ import annotations

import shutil
from pathlib import Path

FAULTS = {
    "fails to load": """

def model_fn(model_dir: str) -> Classifier:
    raise RuntimeError("drill: this model does not load")
""",
    "is slow": """

_quick = predict_fn


def predict_fn(image: Image.Image, classifier: Classifier) -> dict[str, Any]:
    import time

    time.sleep({slow_seconds})
    return _quick(image, classifier)
""",
    "responds with 5xx": """

def predict_fn(image: Image.Image, classifier: Classifier) -> dict[str, Any]:
    raise RuntimeError("drill: this model fails every request")
""",
    "predicts wrongly": """

_right = predict_fn


def predict_fn(image: Image.Image, classifier: Classifier) -> dict[str, Any]:
    from classifier.prediction import label

    response = _right(image, classifier)
    found = response["predictions"]
    classes = [guess["class"] for guess in found]
    for guess, name in zip(found, classes[1:] + classes[:1]):
        guess["class"], guess["label"] = name, label(name)
    return response
""",
}
"""Python that is appended to inference.py, by what the model then does."""

SLOW_SECONDS = 3.0


def write_source(original: Path, folder: Path, fault: str | None) -> None:
    """Make `folder` a copy of the container's code, with a fault in it or without."""
    partial = folder.with_suffix(".new")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(original, partial, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if fault is not None:
        with (partial / "inference.py").open("a") as script:
            script.write(FAULTS[fault].replace("{slow_seconds}", str(SLOW_SECONDS)))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
