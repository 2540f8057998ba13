"""Images, and what is none, sent to an endpoint with the project's own classifier: environment `training`."""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.client import Request, check
from tests.fuzz.mutations import damaged, mutated
from tests.fuzz.trying import Kind, main

PATH = "/endpoints/classifier/invocations"
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "dogImages" / "test"
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"]
TYPES = [
    *["image/jpeg", "image/png", "application/x-image", "application/octet-stream"],
    *[
        "",
        "image/",
        "text/csv",
        "application/json",
        "image/jpeg; charset=x",
        "IMAGE/JPEG",
        "multipart/form-data",
        "é",
    ],
]
ACCEPTS = ["application/json", "*/*", "text/csv", "", "application/*;q=0.1", "x" * 1000]


def kinds(options: argparse.Namespace) -> Iterable[Kind]:
    def answered(request: Request) -> bool:
        response = check(options.url, request)
        document = json.loads(response.body) if response.status == 200 else {}
        for one in document.get("responses", [document] if document else []):
            predictions = one.get("predictions", [{"probability": 1}])
            total = sum(one["probability"] for one in predictions)
            assert 0 < total <= 1.0001, f"probabilities of {total} for {request}"
        if response.status == 424:  # the container's own status is in the body
            original = json.loads(response.body)["OriginalStatusCode"]
            assert 400 <= original < 500, f"the container returned {original}: {response.body[:500]!r}"

        return response.succeeded

    yield Kind("invocations, images", _requests(_images()), answered)
    yield Kind("invocations, images with odd metadata", _requests(_with_metadata()), answered)
    yield Kind("invocations, damaged images", _requests(damaged(_images() | _photos())), answered)
    yield Kind("invocations, JSON", _json_requests(), answered)
    yield Kind("invocations, no images", _requests(st.binary(max_size=200)), answered)


def _requests(bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    usual = st.sampled_from(TYPES[:4])
    headers = st.fixed_dictionaries(
        {
            "Content-Type": usual | st.sampled_from(TYPES),
            "Accept": st.sampled_from(ACCEPTS[:2]) | st.sampled_from(ACCEPTS),
        },
        optional={
            "X-Amzn-SageMaker-Custom-Attributes": st.sampled_from(["a", "é", "x" * 1025, ""]),
            "X-Amzn-SageMaker-Target-Variant": st.sampled_from(
                ["AllTraffic", "AllTraffic", "AllTraffic", "none", ""]
            ),
            "X-Amzn-SageMaker-Inference-Id": st.sampled_from(["a", "x" * 100]),
        },
    )
    return st.builds(Request, st.just("POST"), st.just(PATH), headers, bodies)


def _json_requests() -> st.SearchStrategy[Request]:
    texts = _images().map(lambda body: base64.b64encode(body).decode())
    one, several = texts.map(lambda text: {"image": text}), st.lists(texts, max_size=4)
    documents = one | several.map(lambda images: {"images": images})
    bodies = (documents | mutated(documents)).map(lambda document: json.dumps(document).encode())
    headers = {"Content-Type": "application/json"}
    return bodies.map(lambda body: Request("POST", PATH, headers, body))


@st.composite
def _images(draw: st.DrawFn) -> bytes:
    mode = draw(st.sampled_from(MODES))
    size = draw(
        st.tuples(st.integers(8, 90), st.integers(8, 90)) | st.sampled_from([(1, 1), (1, 3000), (3000, 1)])
    )
    noise = random.Random(draw(st.integers(0, 9))).randbytes(size[0] * size[1])
    image = Image.frombytes("L", size, noise).convert(mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, draw(st.sampled_from(FORMATS)))
    except (OSError, ValueError, KeyError):  # not every format has every mode
        Image.new("RGB", size, draw(st.sampled_from(["red", "black"]))).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def _photos() -> st.SearchStrategy[bytes]:
    """Small real photographs where there are any."""
    files = sorted(PHOTOS.rglob("*.jpg"), key=lambda path: path.stat().st_size)[:3]
    return st.sampled_from([file.read_bytes() for file in files] or [b"\xff\xd8\xff"])


@st.composite
def _with_metadata(draw: st.DrawFn) -> bytes:
    """A JPEG with an EXIF block, or a PNG with a chunk: tags, types, counts and offsets at random."""
    buffer = io.BytesIO()
    if draw(st.booleans()):
        Image.new("RGB", (20, 30), "navy").save(buffer, "JPEG")
        block = b"Exif\0\0" + draw(_tiff())
        segment = b"\xff" + draw(st.sampled_from([b"\xe1", b"\xe0", b"\xe2", b"\xed", b"\xee"]))
        segment += struct.pack(">H", min(len(block) + 2, 65535)) + block[:65533]
        content = buffer.getvalue()
        return content[:2] + segment + content[2:]
    Image.new("RGBA", (20, 30), (1, 2, 3, draw(st.integers(0, 255)))).save(buffer, "PNG")
    name = draw(
        st.sampled_from([b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"gAMA", b"acTL", b"fcTL"])
    )
    data = draw(_tiff() | st.binary(max_size=60))
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    content = buffer.getvalue()
    return content[:33] + chunk + content[33:]


@st.composite
def _tiff(draw: st.DrawFn) -> bytes:
    order = draw(st.sampled_from("<>"))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "I", draw(st.sampled_from([8, 8, 8, 0, 9999]))
    )
    tags = st.sampled_from([0x0112, 0x0112, 0x8769, 0x8825, 0xA005, 0x927C, 0x0100, 0x0111, 0x0117])
    entries = draw(
        st.lists(
            st.tuples(tags, st.integers(0, 20), st.integers(0, 9), st.integers(0, 2**32 - 1)), max_size=4
        )
    )
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return start + struct.pack(order + "H", len(entries)) + body + draw(st.binary(max_size=40))


if __name__ == "__main__":
    main(kinds)
