"""The content of a PUT, without the chunks around it, held against the digests that the client sends with it.

Content-MD5, and the checksums of https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
in a header or, after chunks, in a trailer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import zlib
from collections.abc import Callable
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

from fastcrc import crc32

_CHECKSUM = "x-amz-checksum-"
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;.*)?")
_LONGEST_KEY = 1024  # bytes in UTF-8
_LONGEST_LINE = 4096  # bytes
_STEP = 1024 * 1024  # bytes


def _table(polynomial: int) -> tuple[int, ...]:
    values = list(range(256))
    for _ in range(8):
        values = [value >> 1 ^ polynomial * (value & 1) for value in values]
    return tuple(values)


# https://reveng.sourceforge.io/crc-catalogue/all.htm, CRC-64/NVME, reflected. Few clients send it.
_CRC64NVME = _table(0x9A6C9329AC4BC9B5)
_ONES = 2**64 - 1


def _crc64nvme(data: bytes, previous: int) -> int:
    value = previous ^ _ONES
    for byte in data:
        value = _CRC64NVME[value & 0xFF ^ byte] ^ value >> 8
    return value ^ _ONES


class InvalidRequestError(Exception):
    """A request that S3 refuses, mostly for a content that is not as declared; `code` is S3's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Running:
    """A CRC with the interface of hashlib."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


_ALGORITHMS: dict[str, Callable[[], _Digest]] = {
    "crc32": lambda: _Running(zlib.crc32, 4),
    "crc32c": lambda: _Running(crc32.iscsi, 4),
    "crc64nvme": lambda: _Running(_crc64nvme, 8),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}


class Content:
    """Reads a PUT's content once. After the end, `etag` is its MD5 in hex, and `check` compares digests."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._body: Any = environ["wsgi.input"]
        self._declared = _declared(environ)
        self._md5 = environ.get("HTTP_CONTENT_MD5")
        self._chunked = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "").startswith("STREAMING-")
        self._left = 0  # of the chunk
        trailer = environ.get("HTTP_X_AMZ_TRAILER", "").lower().removeprefix(_CHECKSUM)
        names = {*self._declared, trailer} & _ALGORITHMS.keys()
        self._digests = {name: _ALGORITHMS[name]() for name in names}
        self._etag = hashlib.md5(usedforsecurity=False)

    def read(self, size: int, /) -> bytes:
        """The next bytes. Raises InvalidRequestError for chunks that are none."""
        data: bytes = self._chunk(size) if self._chunked else self._body.read(size)
        self._etag.update(data)
        for digest in self._digests.values():
            digest.update(data)
        return data

    @property
    def etag(self) -> str:
        return self._etag.hexdigest()

    @property
    def checksums(self) -> dict[str, str]:
        """The declared checksums, by lower-case algorithm, in base64."""
        return self._declared

    def check(self) -> None:
        """Raises InvalidRequestError where a digest is malformed or another one."""
        if self._md5 is not None and _decoded(self._md5, 16, "Content-MD5") != self._etag.digest():
            raise InvalidRequestError(
                "BadDigest", "The Content-MD5 you specified did not match what we received."
            )
        for name, declared in self._declared.items():
            found = self._digests[name].digest()
            if _decoded(declared, len(found), _CHECKSUM + name) != found:
                raise InvalidRequestError(
                    "BadDigest",
                    f"The {name.upper()} you specified did not match the calculated checksum.",
                )

    def _chunk(self, size: int) -> bytes:
        if self._left == 0:
            found = _CHUNK_SIZE.fullmatch(self._line())
            if found is None:
                raise InvalidRequestError(
                    "IncompleteBody", "The body is not made of chunks, as its headers say."
                )
            self._left = int(found[1], 16)
            if self._left == 0:
                self._read_trailers()
                self._chunked, self._body = False, io.BytesIO()
                return b""
        data: bytes = self._body.read(min(size, self._left))
        if not data:
            raise InvalidRequestError("IncompleteBody", "The body ends within a chunk.")
        self._left -= len(data)
        if self._left == 0 and self._body.read(2) != b"\r\n":
            raise InvalidRequestError("IncompleteBody", "A chunk is longer than it says.")
        return data

    def _line(self) -> bytes:
        line: bytes = self._body.readline(_LONGEST_LINE)
        return line.removesuffix(b"\n").removesuffix(b"\r")

    def _read_trailers(self) -> None:
        while line := self._line():
            name, _, value = line.decode("latin1").partition(":")
            algorithm = name.strip().lower().removeprefix(_CHECKSUM)
            if algorithm in self._digests:
                self._declared[algorithm] = value.strip()


def check_key(key: str) -> None:
    """Raises InvalidRequestError for a key that is too long."""
    if len(key.encode()) > _LONGEST_KEY:
        raise InvalidRequestError("KeyTooLongError", f"Your key is too long: at most {_LONGEST_KEY} bytes.")


def check(environ: WSGIEnvironment) -> None:
    """Raises InvalidRequestError for a body that is not what its headers say; reads it, and goes back."""
    content = Content(environ)
    while content.read(_STEP):
        pass
    content.check()
    environ["wsgi.input"].seek(0)


def _declared(environ: WSGIEnvironment) -> dict[str, str]:
    names = {name: f"HTTP_X_AMZ_CHECKSUM_{name.upper()}" for name in _ALGORITHMS}
    return {name: environ[key] for name, key in names.items() if key in environ}


def _decoded(text: str, size: int, name: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != size:
        code = "InvalidDigest" if name == "Content-MD5" else "InvalidRequest"
        raise InvalidRequestError(code, f"Value for {name} is invalid: {size} bytes in base64 are wanted.")
    return decoded
