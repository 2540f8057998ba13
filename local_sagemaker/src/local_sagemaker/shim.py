"""The parent of every job's process, which outlives the runtime and writes the exit code to disk.

Runs as a file with the standard library alone, to start in milliseconds:
`python -I -S shim.py FOLDER COMMAND...`. It claims FOLDER (a second shim for the same folder does nothing),
runs COMMAND as the leader of a process group, writes `exit_code`, and kills what the command left running, as
the end of a container would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PROCESS_FILE = "process.json"
EXIT_FILE = "exit_code"
NOT_STARTED = 127  # the shell's exit code for a command that cannot be run


def _write(path: Path, text: str) -> None:
    """Write so that readers see the whole text or no file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _claim(folder: Path) -> bool:
    try:
        os.close(os.open(folder / (PROCESS_FILE + ".claim"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def run(folder: Path, command: list[str]) -> int:
    """Run `command` and return its exit code; 128 + n where signal n ended it, as for a container."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        child = subprocess.Popen(command, process_group=0)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
        _write(folder / PROCESS_FILE, json.dumps({"pid": os.getpid(), "group": 0}))
        return NOT_STARTED
    _write(folder / PROCESS_FILE, json.dumps({"pid": os.getpid(), "group": child.pid}))
    status = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def main() -> None:
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    if _claim(folder):
        _write(folder / EXIT_FILE, str(run(folder, command)))


if __name__ == "__main__":
    main()
