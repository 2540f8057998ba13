"""Writes model.tar.gz of the project's own classifier with random weights: environment `training`."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from classifier.artifact import ModelCard, save_model
from classifier.model import build

CARD = ModelCard("squeezenet1_0", ("001.A", "002.B", "003.C"), 48)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        model = build(CARD.arch, len(CARD.classes), CARD.image_size)
        save_model(model.state_dict(), CARD, Path(folder))
        with tarfile.open(sys.argv[1], "w:gz") as tar:
            tar.add(folder, ".")
