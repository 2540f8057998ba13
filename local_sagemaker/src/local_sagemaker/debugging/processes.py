"""The programs of the rules image that run beside a training job: the evaluator of rules, the system sampler.

The contract with the image `sagemaker-debugger-rules` is the command lines (`python -m debugger evaluate` and
`python -m debugger sample`), the status files, and the prefix of log lines on a rule's status.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_sagemaker import processes
from local_sagemaker.context import Settings
from local_sagemaker.debugging.statuses import Configuration
from local_sagemaker.image_environments import Environment
from local_sagemaker.jobs.container import default_variables, platform_variables
from local_sagemaker.paths import below
from local_sagemaker.processes import ProcessGroup

_LOW_PRIORITY = ("nice", "-n", "10")  # rules must not slow training; on AWS they have their own machine
_STOP_SECONDS = 10.0
_RULES = "rules.json"
_LOG = "process.log"
_LOG_LINES = 5


@dataclass(frozen=True)
class Evaluator:
    """A process that evaluates rules of a job: the rules of its creation, or those that one update added."""

    group: ProcessGroup

    @property
    def rules(self) -> list[str]:
        """The names of its rule configurations."""
        rules = json.loads((self.group.folder / _RULES).read_text())
        return [rule["RuleConfigurationName"] for rule in rules]

    @property
    def log(self) -> Path:
        return self.group.folder / _LOG

    @property
    def journal(self) -> Path:
        return self.group.folder / "log.jsonl"

    def last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-_LOG_LINES:]) or "its log is empty"


@dataclass(frozen=True)
class RuleFolders:
    """The folders of one job's rules. `output` goes to S3 as `rule-output`."""

    root: Path

    @property
    def sampler(self) -> Path:
        return self.root / "sampler"

    @property
    def statuses(self) -> Path:
        return self.root / "statuses"

    @property
    def output(self) -> Path:
        return self.root / "output"

    def rule_output(self, rule: Configuration) -> Path:
        """The folder of what a rule writes. Raises UnsafePathError."""
        return below(self.output, rule["RuleConfigurationName"])

    @property
    def ended(self) -> Path:
        """The file that tells evaluators that no more tensors will come."""
        return self.root / "training-ended"

    def evaluator(self, number: int) -> Path:
        return self.root / "evaluators" / str(number)

    def evaluators(self) -> list[Evaluator]:
        """The evaluators that were started, in order."""
        found: list[Evaluator] = []
        while (group := processes.find(self.evaluator(len(found) + 1))) is not None:
            found.append(Evaluator(group))
        return found


@dataclass(frozen=True)
class Observed:
    """What the programs read and write. `started` is the job's creation time in epoch seconds."""

    job: str
    started: float
    tensors: Path
    profile: Path


def start_evaluator(
    folders: RuleFolders,
    environment: Environment,
    rules: Sequence[Configuration],
    observed: Observed,
    settings: Settings,
) -> Evaluator:
    """Start a process for further rules. Raises ProcessStartError."""
    folder = folders.evaluator(len(folders.evaluators()) + 1)
    folder.mkdir(parents=True, exist_ok=True)
    configurations = folder / _RULES
    configurations.write_text(json.dumps(list(rules), indent=1))
    command = [
        *(str(environment.python), "-m", "debugger", "evaluate"),
        *("--rules", str(configurations), "--job", observed.job, "--started", str(observed.started)),
        *("--tensors", str(observed.tensors), "--profiler", str(observed.profile)),
        *("--output", str(folders.statuses), "--ended-file", str(folders.ended)),
        *_report_arguments(folders, rules),
    ]
    return Evaluator(_start(folder, command, environment, settings))


def start_sampler(
    folders: RuleFolders, environment: Environment, observed: Observed, interval_ms: int, settings: Settings
) -> ProcessGroup:
    """Start writing system metrics to the job's profile, until stopped. Raises ProcessStartError."""
    folders.sampler.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(environment.python), "-m", "debugger", "sample"),
        *("--output", str(observed.profile), "--interval-ms", str(interval_ms)),
    ]
    return _start(folders.sampler, command, environment, settings)


def stop(process: Path) -> None:
    """Stop the program of a folder, if it runs."""
    group = processes.find(process)
    if group is not None and group.running():
        group.stop(_STOP_SECONDS)


def read_statuses(folders: RuleFolders) -> list[dict[str, Any]]:
    """The evaluators' reports so far, ordered by file name."""
    if not folders.statuses.is_dir():
        return []
    return [json.loads(path.read_text()) for path in sorted(folders.statuses.glob("[!.]*.json"))]


def status_line(rule: str) -> str:
    """The prefix of an evaluator's log lines on the status of a rule."""
    return f"[debugger] rule={rule} status="


def _report_arguments(folders: RuleFolders, rules: Sequence[Configuration]) -> list[str]:
    for rule in rules:
        if rule.get("RuleParameters", {}).get("rule_to_invoke") == "ProfilerReport":
            return ["--report", str(folders.rule_output(rule) / "profiler-output")]
    return []


def _start(
    folder: Path, command: Sequence[str], environment: Environment, settings: Settings
) -> ProcessGroup:
    return processes.start(
        folder,
        [*_LOW_PRIORITY, *command],
        environment=_variables(folder, environment, settings),
        cwd=folder,
        log=folder / _LOG,
    )


def _variables(folder: Path, environment: Environment, settings: Settings) -> dict[str, str]:
    """The variables of a job's container, but with one thread: rules must not slow training."""
    variables = {**default_variables(), "OMP_NUM_THREADS": "1"}
    variables |= platform_variables(folder, environment, variables.get("PATH", os.defpath), settings)
    if environment.python_path is not None:
        variables["PYTHONPATH"] = str(environment.python_path)
    return variables
