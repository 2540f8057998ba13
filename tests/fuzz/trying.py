"""Tries inputs of a kind by hypothesis, and counts them."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

# A hang is looked for with this time-out; what is slow by nature stays far below it.
HANG_SECONDS = 20.0


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind. `check` tells whether one was accepted, and raises anything for a fault."""

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], bool]
    share: float = 1.0  # of the examples, for what is slow


@dataclass(frozen=True)
class Tally:
    """How many inputs of a kind were tried, with those that made a fault smaller, and the faults."""

    tried: int
    accepted: int
    faults: tuple[str, ...]


def attempt(kind: Kind, seed_: int, examples: int) -> Tally:
    """Try `examples` inputs. A kind's faults are told apart by the line that raised them."""
    tried = accepted = 0

    def check(value: Any) -> None:
        nonlocal tried, accepted
        tried += 1
        accepted += kind.check(value)

    test = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )(seed(seed_)(given(kind.inputs)(check)))
    try:
        test()
    except BaseExceptionGroup as group:
        return Tally(tried, accepted, tuple(_text(error) for error in group.exceptions))
    except Exception as error:  # noqa: BLE001 - any is a fault
        return Tally(tried, accepted, (_text(error),))
    return Tally(tried, accepted, ())


def _text(error: BaseException) -> str:
    """The error, its place, and the smallest input that hypothesis found for it."""
    lines = traceback.format_exception_only(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"  at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return "\n".join(line.rstrip()[:2000] for line in [*lines, place])


def main(
    kinds: Callable[[argparse.Namespace], Iterable[Kind]], arguments: Sequence[str] | None = None
) -> None:
    """The command of a part: try its kinds, print a line for each, and write their tallies as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tallies", type=Path, help="where to write the tallies")
    parser.add_argument("--url", default="", help="of the local SageMaker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    options = parser.parse_args(arguments)
    tallies: dict[str, Tally] = {}
    for kind in kinds(options):
        if options.only in kind.name:
            examples = max(1, int(options.examples * kind.share))
            tally = tallies[kind.name] = attempt(kind, options.seed, examples)
            counts = f"{tally.tried:>6} tried{tally.accepted:>6} accepted{len(tally.faults):>3} faults"
            print(f"  {kind.name:<40}{counts}", flush=True)
            for fault in tally.faults:
                print("    " + fault.replace("\n", "\n    "), flush=True)
    options.tallies.write_text(
        json.dumps({name: [one.tried, len(one.faults)] for name, one in tallies.items()})
    )
