"""Runs rules and sampler beside the training script in its own container (mode ``in_job``).

For a training script::

    settings = monitor.MonitorSettings(mode, output_data_dir, rules)
    with monitor.beside(settings, on_stop=stop.set) as watch:
        configuration = watch.hook_configuration(RunLength(steps_per_epoch, epochs, evaluation_steps))
        ...register model and loss with smdebug's hook, made from this file (None: no tensors)...
        for images, labels in watch.steps.batches(loader, "TRAIN"):
            with watch.steps.step("TRAIN"):
                ...

``mode`` chooses who evaluates rules. ``in_job``: two child processes, the sampler and the evaluator. Each
change of a rule's status is one line on stdout (see ``statuses.Status.line``)::

    [debugger] rule=Overfit status=IssuesFound step=40 | the validation loss ... | try: train fewer epochs ...

The results are ``<output_data>/debugger/rules/<Rule>.json`` and
``<output_data>/debugger/profiler-report.html``. A finding of a rule with the action stop_training calls
``on_stop``, which should end the training after the present step. ``service``: the platform evaluates; the
script only writes tensors and traces to where the platform's configuration files say. ``off``: nothing.

The monitor only observes: its errors are logged and never end the training.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from debugger import hook_config
from debugger.configurations import invoked_rule, rule_configuration
from debugger.hook import close_hook
from debugger.hook_config import RunLength
from debugger.statuses import STOP_TRAINING
from debugger.steps import StepTimer

logger = logging.getLogger(__name__)

SERVICE, IN_JOB, OFF = "service", "in_job", "off"
MODES = (SERVICE, IN_JOB, OFF)
PROFILED_STEPS = re.compile(r'"NumSteps":\s*(\d+)')
"""In DetailedProfilingConfig, which is not JSON: the SageMaker SDK writes it with a trailing comma."""
FINISH_S = 120.0
"""Seconds that the end of the job waits for rules that are still evaluating the last tensors."""
DEFAULT_RULES = ("VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization", "ProfilerReport")


def default_rules() -> list[dict[str, Any]]:
    """Configurations of DEFAULT_RULES."""
    return [rule_configuration(name) for name in DEFAULT_RULES]


@dataclass(frozen=True)
class MonitorSettings:
    """``rules`` are DebugRuleConfiguration objects; those named in ``stop_rules`` may stop the training."""

    mode: str
    output_data: Path
    rules: Sequence[dict[str, Any]] = field(default_factory=default_rules)
    stop_rules: Sequence[str] = ()
    base_dir: Path = Path("/opt/ml")
    profile_steps: int = 0
    sampling_ms: int = 500


class Watch:
    """The training script's view of its monitor."""

    def __init__(self, settings: MonitorSettings, folder: Path | None) -> None:
        self._settings = settings
        self._folder = folder
        self.steps = StepTimer(_traces(settings, folder), profile_steps=_profile_steps(settings))

    def hook_configuration(self, run: RunLength) -> Path | None:
        """smdebug's configuration file with intervals that fit this run; None: save no tensors."""
        given = self._given()
        if given is None:
            return None
        target = Path(tempfile.mkdtemp(prefix="debugger-hook-")) if self._folder is None else self._folder
        try:
            given = hook_config.fitted(given, run)
        except (AttributeError, TypeError, ValueError) as error:
            logger.warning("debugger: the save intervals are used unchanged: %s", error)
        return hook_config.write(given, target / "debughookconfig.json")

    def _given(self) -> dict[str, Any] | None:
        if self._settings.mode == OFF:
            return None
        if self._folder is not None:
            names = [invoked_rule(one) for one in self._settings.rules]
            return hook_config.for_rules(names, self._folder / "tensors")
        path = Path(
            os.environ.get("SMDEBUG_CONFIG_FILE_PATH")
            or self._settings.base_dir / "input/config/debughookconfig.json"
        )
        return _read_json(path)


def _traces(settings: MonitorSettings, folder: Path | None) -> Path | None:
    """Folder for step traces: the monitor's own, or that of the platform's profiler configuration."""
    if settings.mode == OFF:
        return None
    if folder is not None:
        return folder / "profiler"
    configuration = _profiler_configuration(settings)
    if configuration is None:
        return None
    place = (configuration.get("ProfilingParameters") or {}).get("LocalPath") or configuration.get(
        "LocalPath"
    )
    return Path(place) if place else settings.base_dir / "output/profiler"


def _profile_steps(settings: MonitorSettings) -> int:
    """Steps to profile: the script's setting, or DetailedProfilingConfig of the platform's profiler."""
    if settings.mode != SERVICE:
        return settings.profile_steps
    parameters = (_profiler_configuration(settings) or {}).get("ProfilingParameters") or {}
    steps = PROFILED_STEPS.search(str(parameters.get("DetailedProfilingConfig", "")))
    return int(steps[1]) if steps else 0


def _profiler_configuration(settings: MonitorSettings) -> dict[str, Any] | None:
    path = os.environ.get("SMPROFILER_CONFIG_PATH")
    return _read_json(Path(path) if path else settings.base_dir / "input/config/profilerconfig.json")


def _read_json(path: Path) -> dict[str, Any] | None:
    """A configuration file's content; None without a file or, with a warning, if it is not JSON."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning("debugger: %s is not JSON (%s)", path, error)
        return None
    return document if isinstance(document, dict) else None


@contextmanager
def beside(settings: MonitorSettings, on_stop: Callable[[], None] = lambda: None) -> Iterator[Watch]:
    """Monitor the block as ``settings`` say, see above. Raises ValueError for an unknown mode."""
    if settings.mode not in MODES:
        raise ValueError(f"there is no debugger mode {settings.mode!r}: choose one of {', '.join(MODES)}")
    if settings.mode != IN_JOB:
        watch = Watch(settings, None)
        try:
            yield watch
        finally:
            watch.steps.close()
        return
    folder = Path(tempfile.mkdtemp(prefix="debugger-"))
    children = _Children(settings, folder, on_stop)
    watch = Watch(settings, folder)
    children.start()
    try:
        yield watch
    finally:
        close_hook()
        watch.steps.close()
        children.finish()
        shutil.rmtree(folder, ignore_errors=True)


class _Children:
    """The sampler and the evaluator, as child processes in sessions of their own."""

    def __init__(self, settings: MonitorSettings, folder: Path, on_stop: Callable[[], None]) -> None:
        self._settings = settings
        self._folder = folder
        self._ended_file = folder / "training_ended"
        self._on_stop = on_stop
        self._sampler: subprocess.Popen[str] | None = None
        self._evaluator: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start both; a failure is logged and training continues without them."""
        results = self._settings.output_data / "debugger"
        rules = self._folder / "rules.json"
        rules.write_text(json.dumps(list(self._settings.rules)), encoding="utf-8")
        profiler, parent = self._folder / "profiler", os.getpid()
        sample = {"output": profiler, "interval-ms": self._settings.sampling_ms, "parent": parent}
        evaluate = {
            "rules": rules,
            "tensors": self._folder / "tensors",
            "output": results / "rules",
            "job": os.environ.get("TRAINING_JOB_NAME", "training"),
            "ended-file": self._ended_file,
            "profiler": profiler,
            "report": results,
            "nice": 10,
            "parent": parent,
        }
        stop_rules = [text for rule in self._settings.stop_rules for text in ("--stop-rule", rule)]
        try:
            self._sampler = _start(["sample", *_options(sample)], stdout=None)
            self._evaluator = _start(["evaluate", *_options(evaluate), *stop_rules], stdout=subprocess.PIPE)
        except OSError as error:
            logger.warning("debugger: rules and sampler could not be started: %s", error)
            return
        self._reader = threading.Thread(target=self._follow, name="debugger", daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        """Forward the evaluator's lines to stdout, and act on a request to stop."""
        if self._evaluator is None or self._evaluator.stdout is None:
            return
        for line in self._evaluator.stdout:
            print(line, end="", flush=True)
            if line.rstrip().endswith(f"| action: {STOP_TRAINING}"):
                self._on_stop()

    def finish(self) -> None:
        """Let the rules evaluate everything that was saved, then end both processes."""
        _end(self._sampler, 10.0)
        self._ended_file.touch()
        if self._evaluator is None:
            return
        deadline = time.monotonic() + FINISH_S
        try:
            self._evaluator.wait(FINISH_S)
        except subprocess.TimeoutExpired:
            logger.warning("debugger: rules did not end within %.0f s and are stopped", FINISH_S)
            _end(self._evaluator, 10.0)
        if self._reader is not None:
            self._reader.join(max(1.0, deadline - time.monotonic()))


def _options(values: Mapping[str, object]) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def _start(command: list[str], stdout: int | None) -> subprocess.Popen[str]:
    """Start ``python -m debugger`` with this package on its path."""
    package = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
    return subprocess.Popen(
        [sys.executable, "-m", "debugger", *command],
        stdout=stdout,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[str] | None, grace: float) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
