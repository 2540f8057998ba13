"""Following log files: lines, progress bars, journals and CloudWatch Logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from local_sagemaker.context import ACCOUNT
from local_sagemaker.logs import (
    MAX_EVENT_BYTES,
    CloudWatchLogs,
    LogEvent,
    LogFollower,
    read_journal,
    visible_text,
)
from moto.logs.models import logs_backends


class Sink:
    """Collects a follower's events."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __call__(self, events: Sequence[LogEvent]) -> None:
        self.messages += [event.message for event in events]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def follower(log: Path, sink: Sink) -> LogFollower:
    return LogFollower(log, log.with_suffix(".jsonl"), sink)


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_every_line_is_one_event(log: Path) -> None:
    sink = Sink()
    following = follower(log, sink)
    assert following.poll() == []
    append(log, "one\ntw")
    assert [event.message for event in following.poll()] == ["one"]
    append(log, "o\n\nfour\n")
    assert [event.message for event in following.poll()] == ["two", "", "four"]
    assert following.poll() == []
    assert sink.messages == ["one", "two", "", "four"]


def test_an_incomplete_last_line_is_the_last_event(log: Path) -> None:
    following = follower(log, Sink())
    append(log, "no newline")
    assert following.poll() == []
    assert [event.message for event in following.poll(final=True)] == ["no newline"]
    assert following.poll(final=True) == []


def test_following_continues_after_a_restart_with_the_journal_first(log: Path) -> None:
    append(log, "one\ntwo\nthr")
    follower(log, Sink()).poll()
    append(log, "ee\n")
    sink = Sink()
    following = follower(log, sink)
    assert sink.messages == ["one", "two"]
    assert [event.message for event in following.poll()] == ["three"]


def test_an_incomplete_journal_line_is_read_from_the_log_again(log: Path) -> None:
    append(log, "one\ntwo\n")
    follower(log, Sink()).poll()
    journal = log.with_suffix(".jsonl")
    content = journal.read_bytes()
    journal.write_bytes(content[: content.rindex(b"two")])
    sink = Sink()
    following = follower(log, sink)
    assert sink.messages == ["one"]
    assert [event.message for event in following.poll()] == ["two"]
    assert [event.message for event in read_journal(journal)] == ["one", "two"]


def test_journal_has_offset_time_and_message(log: Path) -> None:
    append(log, "été\n")
    follower(log, Sink()).poll()
    end, timestamp, message = json.loads(log.with_suffix(".jsonl").read_text())
    assert (end, message) == (len("été\n".encode()), "été")
    assert timestamp > 1_600_000_000_000


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\n", b"plain"),
        (b"windows\r\n", b"windows"),
        (b"  0%\r 50%\r100%\n", b"100%"),
        (b"100%\r\r\n", b"100%"),
        (b"\r\n", b""),
        (b"\n", b""),
    ],
)
def test_a_line_shows_what_a_terminal_would(line: bytes, shown: bytes) -> None:
    assert visible_text(line) == shown


def test_a_progress_bar_shows_before_its_line_ends(log: Path) -> None:
    following = follower(log, Sink())
    append(log, "10%\r20%\r30")
    assert [event.message for event in following.poll()] == ["20%"]
    append(log, "%\r40%\r")
    assert following.poll() == []  # redrawn too soon after the last one
    append(log, "100%\n")
    assert [event.message for event in following.poll()] == ["100%"]


def test_long_lines_are_cut_into_events(log: Path) -> None:
    append(log, "x" * (MAX_EVENT_BYTES + 5) + "\nnext\n")
    events = follower(log, Sink()).poll()
    assert [len(event.message) for event in events] == [MAX_EVENT_BYTES, 5, 4]


def test_bytes_that_are_not_utf_8_are_replaced(log: Path) -> None:
    log.write_bytes(b"\xff\xfe image\n")
    assert follower(log, Sink()).poll()[0].message.endswith(" image")


def test_events_of_any_age_are_in_cloudwatch_logs() -> None:
    logs = CloudWatchLogs("eu-west-3")
    logs.put("/test/group", "stream", [])
    logs.put("/test/group", "stream", [LogEvent(3, 86_400_000, "from 1970")])
    stream = logs_backends[ACCOUNT]["eu-west-3"].groups["/test/group"].streams["stream"]
    assert [event.message for event in stream.events] == ["from 1970"]
