"""``python -m debugger COMMAND``: evaluate rules, sample the system, report, compare with AWS."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from debugger import golden, profiler_report, sampler
from debugger.configurations import RuleConfigurationsError, parse_rules
from debugger.trial import prepare_smdebug

COMMANDS = {"profiler_report": profiler_report.main, "golden": golden.main, "sample": sampler.main}


def main(arguments: list[str] | None = None) -> int:
    """Hand the arguments to the command they name."""
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
    parser.description = (
        "Evaluate rules; one status file a rule in --output, one line on stdout at each change."
    )
    parser.add_argument("--rules", type=Path, required=True, help="JSON list of DebugRuleConfiguration")
    parser.add_argument("--tensors", required=True, help="folder or s3:// prefix that smdebug writes to")
    parser.add_argument("--output", type=Path, required=True, help="folder for the status files")
    parser.add_argument("--job", required=True, help="name of the training job")
    parser.add_argument("--ended-file", type=Path, help="file whose appearance says that training has ended")
    parser.add_argument(
        "--profiler", help="folder or s3:// prefix of system samples and traces, for profiler rules"
    )
    parser.add_argument("--report", help="folder or s3:// prefix for ProfilerReport's files")
    parser.add_argument(
        "--started", type=float, help="epoch seconds; tensors saved earlier are another job's"
    )
    parser.add_argument(
        "--stop-rule", action="append", default=[], help="rule whose finding requests stop_training"
    )
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--parent", type=int, help="stop when this process, the parent, has gone")
    parser.add_argument("--nice", type=int, default=0, help="lower this process's priority by so much")
    parser.add_argument(
        "--idle-timeout", type=float, default=3600.0, help="give up after this many seconds without news"
    )


def read_rules(path: Path) -> list[dict[str, Any]]:
    """Rule configurations from a file. Raises RuleConfigurationsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleConfigurationsError(f"--rules {path} cannot be read: {error}") from error
    return parse_rules(text, f"--rules {path}")


def evaluate(options: argparse.Namespace) -> None:
    """Run an evaluation to its end; SIGTERM ends it early with the status Stopped."""
    prepare_smdebug()
    from debugger.evaluator import Evaluation, EvaluatorSettings  # noqa: PLC0415 - imports smdebug
    from debugger.statuses import StatusBoard  # noqa: PLC0415

    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    os.nice(options.nice)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = EvaluatorSettings(
        tensors=options.tensors,
        job=options.job,
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
