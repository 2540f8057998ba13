"""``python -m debugger COMMAND``: evaluate rules, sample the system, write reports, compare with AWS."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from debugger import sampler
from debugger.configurations import RuleConfigurationsError, parse_rules
from debugger.profiler import aws_reports, write_report
from debugger.statuses import StatusBoard
from debugger.trial import prepare_smdebug

COMMANDS = {"profiler_report": write_report.main, "golden": aws_reports.main, "sample": sampler.main}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m debugger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        commands.add_parser(name, add_help=False)
    _add_evaluate(commands.add_parser("evaluate", help="evaluate a job's rules beside its training"))
    options = parser.parse_args(arguments)
    try:
        evaluate(options)
    except RuleConfigurationsError as error:
        print(f"debugger: {error}", file=sys.stderr)
        return 2
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Evaluate rules: a status file per rule in --output, a line on stdout per change."
    add = parser.add_argument
    add("--rules", type=Path, required=True, help="JSON list of DebugRuleConfiguration")
    add("--tensors", required=True, help="folder or s3:// prefix that smdebug writes to")
    add("--output", type=Path, required=True, help="folder for the status files")
    add("--job", required=True, help="name of the training job")
    add("--ended-file", type=Path, help="file that exists once training has ended")
    add("--profiler", help="folder or s3:// prefix of system samples and traces, for profiler rules")
    add("--report", help="folder or s3:// prefix for ProfilerReport's files")
    add("--started", type=float, help="epoch seconds; tensors saved earlier belong to another job")
    add("--stop-rule", action="append", default=[], help="rule whose finding requests stop_training")
    add("--poll", type=float, default=1.0, help="seconds between two polls")
    add("--parent", type=int, help="stop when this parent process has ended")
    add("--nice", type=int, default=0, help="added to the niceness of this process")
    add("--idle-timeout", type=float, default=3600.0, help="give up after so many seconds without tensors")


def read_rules(path: Path) -> list[dict[str, Any]]:
    """Rule configurations from a JSON file. Raises RuleConfigurationsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleConfigurationsError(f"--rules {path} cannot be read: {error}") from error
    return parse_rules(text, f"--rules {path}")


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate until training and all rules have ended; SIGTERM ends it early with the status Stopped."""
    prepare_smdebug()
    from debugger.evaluator import Evaluation, EvaluatorSettings  # noqa: PLC0415 - imports smdebug

    log_format = "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=log_format)
    os.nice(options.nice)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = EvaluatorSettings(
        tensors=options.tensors,
        ended_file=options.ended_file,
        profiler=options.profiler,
        report=options.report,
        started=options.started,
        poll=options.poll,
        idle_timeout=options.idle_timeout,
        stop_rules=frozenset(options.stop_rule),
        parent=options.parent,
    )
    board = StatusBoard(options.output, changed=lambda status: print(status.line(), flush=True))
    Evaluation(read_rules(options.rules), settings, board, stop).run()


if __name__ == "__main__":
    sys.exit(main())
