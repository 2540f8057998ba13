"""Contents of S3 objects: one immutable file each, complete or absent."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

_CHUNK = 1024 * 1024
_SECONDS_FOR_READERS = 60.0  # a replaced blob stays this long, for responses in progress


class Readable(Protocol):
    """The part of a binary file's interface that is used here."""

    def read(self, size: int, /) -> bytes: ...


class Blobs:
    """A folder of blobs. `add` returns a name only after the whole content is on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._retired: deque[tuple[float, str]] = deque()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def add(self, content: Readable, observe: Callable[[bytes], None] | None = None) -> str:
        """Write a new blob and return its name; `observe` is called with every chunk.

        Raises OSError (a full disk, too) and then leaves nothing behind.
        """
        name = uuid.uuid4().hex
        path = self.path(name)
        path.parent.mkdir(exist_ok=True)
        try:
            with path.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    if observe:
                        observe(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return name

    def discard(self, names: Iterable[str]) -> None:
        """Delete blobs that no response is reading."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def retire(self, names: Iterable[str]) -> None:
        """Delete blobs that are no longer used, after responses in progress have had time to finish."""
        now = time.monotonic()
        self._retired.extend((now + _SECONDS_FOR_READERS, name) for name in names)
        while self._retired and self._retired[0][0] < now:
            self.path(self._retired.popleft()[1]).unlink(missing_ok=True)

    def sweep(self, used: set[str]) -> None:
        """At startup: delete blobs that no object uses, such as half a blob after a crash."""
        for folder in self._folder.iterdir():
            with os.scandir(folder) as entries:
                unused = [Path(entry.path) for entry in entries if entry.name not in used]
            for path in unused:
                path.unlink()


class BlobReader(io.RawIOBase):
    """A blob as the seekable file of a moto key's value; holds neither a file descriptor nor memory."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a blob is read from its beginning")
        self._position = offset
        return offset

    def read(self, size: int | None = -1) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._position)
            content = file.read(size)
        self._position += len(content)
        return content

    def close(self) -> None:
        """Stay readable: moto closes the buffer of a replaced key, which a response may still be reading."""
