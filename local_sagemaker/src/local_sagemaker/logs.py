"""Container logs: a log file is followed line by line, recorded in a journal, and sent to CloudWatch Logs.

The journal has one JSON line for each event: `[end offset in the log file, epoch milliseconds, message]`.
It is written before the event goes to CloudWatch Logs, which moto keeps in memory. After a restart the stream
is filled from the journal, and following continues at its last offset, so that no line is lost or repeated.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moto.logs.models import LogsBackend, logs_backends

from local_sagemaker.context import ACCOUNT

MAX_EVENT_BYTES = 262_144  # PutLogEvents' limit for one event
_CHUNK_BYTES = 4 * 1024 * 1024
_REFRESH_SECONDS = 1.0  # how often a progress bar that redraws its line is logged
_LINE = re.compile(rb"[^\n]*\n")


@dataclass(frozen=True)
class LogEvent:
    """One line of a container's output. `end` is the offset after it in the log file, in bytes; `timestamp`
    is in epoch milliseconds.
    """

    end: int
    timestamp: int
    message: str


class CloudWatchLogs:
    """Log groups and streams of the local CloudWatch Logs; creates what is missing."""

    def __init__(self, region: str) -> None:
        self._region = region

    def put(self, group: str, stream: str, events: Sequence[LogEvent]) -> None:
        """Append events to a stream; an empty list only creates the stream."""
        backend: LogsBackend = logs_backends[ACCOUNT][self._region]
        backend.ensure_log_group(group)
        backend.ensure_log_stream(group, stream)
        if events:
            records = [{"timestamp": event.timestamp, "message": event.message} for event in events]
            # Not the backend's own put_log_events, which drops old events.
            backend.groups[group].put_log_events(stream, records)


class LogFollower:
    """Turns a growing log file into events. Not thread-safe: one thread polls."""

    def __init__(self, log: Path, journal: Path, sink: Callable[[Sequence[LogEvent]], None]) -> None:
        """Pass the events in `journal` to `sink`, and continue after them."""
        self._log = log
        self._journal = journal
        self._sink = sink
        self._offset = 0
        self._refreshed = 0.0
        _drop_incomplete_line(journal)
        if past := list(read_journal(journal)):
            self._offset = past[-1].end
        sink(past)

    def poll(self, *, final: bool = False) -> list[LogEvent]:
        """The events since the last call, which are then in the journal and the sink.

        `final`: the log will not grow, so that an incomplete last line counts, too.
        """
        events: list[LogEvent] = []
        while batch := self._read(final):
            events += batch
        return events

    def _read(self, final: bool) -> list[LogEvent]:
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return []
        events = list(self._split(data, final))
        if events:
            self._offset = events[-1].end
            with self._journal.open("a") as journal:
                journal.writelines(
                    json.dumps([event.end, event.timestamp, event.message]) + "\n" for event in events
                )
            self._sink(events)
        return events

    def _split(self, data: bytes, final: bool) -> Iterator[LogEvent]:
        now = int(time.time() * 1000)
        position = 0
        for line in _LINE.finditer(data):
            position = line.end()
            yield from self._events(line.group(), position, now)
        rest = data[position:]
        if rest and (final or len(rest) >= MAX_EVENT_BYTES):
            yield from self._events(rest, position + len(rest), now)
        elif b"\r" in rest and time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            end = rest.rindex(b"\r") + 1
            yield from self._events(rest[:end], position + end, now)

    def _events(self, line: bytes, end: int, now: int) -> Iterator[LogEvent]:
        """One event, or several for a line longer than MAX_EVENT_BYTES; all have the line's end offset."""
        shown = visible_text(line)
        for start in range(0, max(len(shown), 1), MAX_EVENT_BYTES):
            piece = shown[start : start + MAX_EVENT_BYTES]
            yield LogEvent(self._offset + end, now, piece.decode("utf-8", errors="replace"))


def visible_text(line: bytes) -> bytes:
    """What a terminal shows of a line: the last of its texts, where carriage returns overwrite each other."""
    texts = [text for text in line.rstrip(b"\r\n").split(b"\r") if text.strip()]
    return texts[-1] if texts else b""


def read_journal(journal: Path) -> Iterator[LogEvent]:
    """The events of a journal, oldest first; none where there is no journal."""
    try:
        with journal.open() as lines:
            for line in lines:
                end, timestamp, message = json.loads(line)
                yield LogEvent(end, timestamp, message)
    except FileNotFoundError:
        return


def messages(events: Iterable[LogEvent]) -> list[str]:
    return [event.message for event in events]


def _drop_incomplete_line(journal: Path) -> None:
    """Remove a last line that a crash left incomplete."""
    try:
        with journal.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    except FileNotFoundError:
        return
