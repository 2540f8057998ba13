"""A disk that has no room for tensors ends the training with the reason, and never hangs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "sagemaker_code"

# No file may grow beyond 20 kB: another error than that of a full disk, which takes the same way.
PROGRAM = """
import resource, sys
from debugger import library
library.prepare()
import numpy as np
from smdebug.core.writer import FileWriter

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
writer = FileWriter(trial_dir=sys.argv[1], step=0, worker="worker_0")
try:
    for step in range(100):  # the queue holds ten
        writer.write_tensor(tdata=np.zeros(10_000), tname=f"tensor_{step}", mode=GLOBAL, mode_step=step)
    writer.flush()
except OSError as error:
    print("raised", error.strerror)
for _ in range(20):  # as at the end of the interpreter, and whatever else comes
    try:
        writer.close()
    except OSError:
        pass
print("ended")
"""


@pytest.mark.timeout(120)
def test_a_writer_that_died_passes_its_error_on(tmp_path: Path) -> None:
    program = PROGRAM.replace("GLOBAL", "__import__('smdebug.core.modes').core.modes.ModeKeys.GLOBAL")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.splitlines() == ["raised File too large", "ended"], done.stderr


TRAINING = """
import resource, sys
from pathlib import Path
from debugger import library
library.prepare()
import torch
from debugger.hook import Phase, open_hook

model, criterion = torch.nn.Sequential(torch.nn.Linear(100, 100)), torch.nn.CrossEntropyLoss()
hook = open_hook(Path(sys.argv[1]), model, criterion)
hook.enter(Phase.TRAIN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for step in range(100):
    criterion(model(torch.randn(8, 100)), torch.zeros(8, dtype=torch.long)).backward()
print("trained")
"""


@pytest.mark.timeout(120)
def test_a_training_without_room_for_its_tensors_fails_with_the_reason(tmp_path: Path) -> None:
    configuration = tmp_path / "debughookconfig.json"
    collections = [{"CollectionName": name} for name in ("weights", "gradients", "losses")]
    configuration.write_text(
        json.dumps(
            {
                "S3OutputPath": "s3://bucket/tensors",
                "LocalPath": str(tmp_path / "tensors"),
                "HookParameters": {"save_interval": "1"},
                "CollectionConfigurations": collections,
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(configuration)],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "OSError: [Errno 27] File too large" in done.stderr
