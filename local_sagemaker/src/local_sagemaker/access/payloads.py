"""Bodies of signed requests, checked while they pass.

Chunked ones have a signature for each chunk, which continues the one before it:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from local_sagemaker.access.request import RefusedError

_EMPTY = hashlib.sha256().hexdigest()
_CHUNK_HEADER = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_LONGEST_LINE = 4096  # bytes of a chunk's header or a trailer's line


class Payload(Protocol):
    """Checks a body. `must_be_complete`: nobody may act on a part of it, whatever the request is."""

    must_be_complete: bool

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body. Raises RefusedError."""
        ...

    def finish(self) -> None:
        """At the end of the body. Raises RefusedError."""
        ...


class UnsignedPayload:
    """A body without a signature of its own; with a `digest`, it must have the `declared` one."""

    must_be_complete = False

    def __init__(self, digest: Any = None, declared: str = "") -> None:
        self._digest = digest
        self._declared = declared

    def feed(self, data: bytes) -> None:
        if self._digest is not None:
            self._digest.update(data)

    def finish(self) -> None:
        if self._digest is not None and self._digest.hexdigest() != self._declared:
            raise RefusedError(
                "The body does not have the x-amz-content-sha256 that was signed.",
                "XAmzContentSHA256Mismatch",
                400,
            )


class WholePayload:
    """A body whose hash is part of the request's signature; `check` raises RefusedError for a wrong one."""

    must_be_complete = True

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self._digest.update(data)

    def finish(self) -> None:
        self._check(self._digest.hexdigest())


@dataclass(frozen=True)
class ChunkSigner:
    """Signs chunks. `sign` gives the signature of a string to sign."""

    timestamp: str
    scope: str
    sign: Callable[[str], str]

    def chunk(self, previous: str, digest: str) -> str:
        return self._signature("AWS4-HMAC-SHA256-PAYLOAD", previous, _EMPTY, digest)

    def trailer(self, previous: str, digest: str) -> str:
        return self._signature("AWS4-HMAC-SHA256-TRAILER", previous, digest)

    def _signature(self, kind: str, *rest: str) -> str:
        return self.sign("\n".join([kind, self.timestamp, self.scope, *rest]))


class SignedChunks:
    """A body in signed chunks, the last one empty; with a `trailer`, signed headers follow."""

    must_be_complete = False

    def __init__(self, signer: ChunkSigner, seed: str, *, trailer: bool) -> None:
        self._signer = signer
        self._previous = seed
        self._trailer = trailer
        self._step: Callable[[], bool] = self._header
        self._buffer = bytearray()
        self._left = 0
        self._claimed = ""
        self._digest = hashlib.sha256()
        self._trailer_lines = hashlib.sha256()
        self._ended = False

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> None:
        if not self._ended:
            raise RefusedError("The body ends before its last chunk.", "IncompleteBody", 400)

    def _line(self) -> bytes | None:
        line, end, _ = self._buffer[: _LONGEST_LINE + 2].partition(b"\r\n")
        if not end:
            if len(self._buffer) > _LONGEST_LINE:
                raise _malformed()
            return None
        del self._buffer[: len(line) + 2]
        return bytes(line)

    def _header(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _CHUNK_HEADER.fullmatch(line)
        if found is None:
            raise _malformed()
        self._left, self._claimed = int(found[1], 16), found[2].decode()
        self._digest = hashlib.sha256()
        if self._left:
            self._step = self._data
            return True
        self._verify(self._signer.chunk(self._previous, _EMPTY))
        self._step = self._trailer_line if self._trailer else self._end
        return True

    def _data(self) -> bool:
        part = self._buffer[: self._left]
        self._digest.update(part)
        del self._buffer[: len(part)]
        self._left -= len(part)
        if self._left or len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise _malformed()
        del self._buffer[:2]
        self._verify(self._signer.chunk(self._previous, self._digest.hexdigest()))
        self._step = self._header
        return True

    def _trailer_line(self) -> bool:
        line = self._line()
        if line is None:
            return False
        name, _, value = line.partition(b":")
        if name.lower() == b"x-amz-trailer-signature":
            self._claimed = value.strip().decode("latin1")
            self._verify(self._signer.trailer(self._previous, self._trailer_lines.hexdigest()))
            self._step = self._end
        else:
            self._trailer_lines.update(name.lower().strip() + b":" + value.strip() + b"\n")
        return True

    def _end(self) -> bool:
        self._ended = True
        if len(self._buffer) > 2 or not b"\r\n".startswith(self._buffer):
            raise _malformed()
        return False

    def _verify(self, expected: str) -> None:
        if not hmac.compare_digest(expected.encode(), self._claimed.encode()):
            raise RefusedError("A chunk's signature does not match its content.", "SignatureDoesNotMatch")
        self._previous = expected


def _malformed() -> RefusedError:
    return RefusedError("The body is not in signed chunks, as its headers say.", "InvalidRequest", 400)
