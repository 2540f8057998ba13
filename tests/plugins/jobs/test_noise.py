"""A job's log without what AWS's toolkit says of itself, whatever the polls cut in two."""

from __future__ import annotations

from typing import Any

from retraining.jobs.noise import without_noise

LOG = """\
2026-11-27 20:55:52,034 sagemaker-training-toolkit INFO     No GPUs detected
2026-11-27 20:55:52,034 sagemaker-training-toolkit INFO     Failed to parse hyperparameter arch to Json.
Returning the value itself
2026-11-27 20:55:52,035 sagemaker-training-toolkit ERROR    ExecuteUserScriptError
2026-11-27 20:55:52,036 sagemaker_pytorch_container.training INFO     Invoking user training script.

Training Env:

{
    "channel_input_dirs": {
        "train": "/opt/ml/input/data/train"
    },
    "hosts": [
        "algo-1"
    ]
}

Environment variables:

SM_HOSTS=["algo-1"]
SM_HP_BATCH-SIZE=64
PYTHONPATH=/opt/ml/code

Invoking script with the following command:

/opt/conda/bin/python train.py --lr 0.1


training on 2 CPU threads
    an indented line of the script
{"json": "of the script"}
ERROR:2026-11-27 20:56:50 18431:18431 DeviceProperties.cpp:50] gpuGetDeviceCount failed with code 35
USDT:2026-11-27 20:56:22 18431:18431 SyncActivityProfilerHandler.cpp:52] profiler_start
epoch=1 train_loss=0.5"""

SCRIPT = [
    "2026-11-27 20:55:52,035 sagemaker-training-toolkit ERROR    ExecuteUserScriptError",
    "Invoking script with the following command:",
    "/opt/conda/bin/python train.py --lr 0.1",
    "training on 2 CPU threads",
    "    an indented line of the script",
    '{"json": "of the script"}',
    "epoch=1 train_loss=0.5",
]


def test_the_script_and_errors_stay() -> None:
    assert list(without_noise(LOG.splitlines(), {})) == SCRIPT


def test_a_block_may_be_cut_anywhere() -> None:
    lines = LOG.splitlines()
    for cut in range(len(lines)):
        position: dict[str, Any] = {}
        found = [*without_noise(lines[:cut], position), *without_noise(lines[cut:], position)]
        assert found == SCRIPT
