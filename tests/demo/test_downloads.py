"""Downloads against a real HTTP server that can serve parts and break off."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo.downloads import Archive, download, fetch_dataset, fetch_weights
from demo.settings import DemoError


@dataclass
class FileServer:
    """Serves `files`; the next response ends after `break_after` bytes where that is set."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: int | None = None
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.response(self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def response(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.asked.append(asked)
        content = self.files.get(request.path.lstrip("/"))
        if content is None:
            request.send_error(404)
            return
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(match[1]) if match and self.ranges else 0
        if start >= len(content) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:][: self.break_after])
        self.break_after = None


@pytest.fixture
def server() -> Iterator[FileServer]:
    files = FileServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), files.handler())
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    files.url = f"http://127.0.0.1:{http.server_port}"
    yield files
    http.shutdown()
    http.server_close()
    thread.join()


def ignore(_done: int, _total: int) -> None:
    pass


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in names:
            file.writestr(name, f"image {name}")
    return packed.getvalue()


def archive(server: FileServer, *, images: int = 2) -> Archive:
    return Archive(f"{server.url}/dogs.zip", "dogs", classes=2, images={"train": images, "test": 2})


DOGS = ("dogs/train/001.A/a.jpg", "dogs/train/002.B/b.jpg", "dogs/test/001.A/c.jpg", "dogs/test/002.B/d.jpg")


def test_a_download_goes_on_where_it_broke_off(server: FileServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * 400
    server.files["file"] = content
    server.break_after = 30_000
    seen: list[tuple[int, int]] = []
    with pytest.raises(DemoError, match=r"30,000 bytes are kept"):
        download(f"{server.url}/file", tmp_path / "file", ignore)
    assert not (tmp_path / "file").exists()

    download(f"{server.url}/file", tmp_path / "file", lambda done, total: seen.append((done, total)))

    assert (tmp_path / "file").read_bytes() == content
    assert server.asked == [None, "bytes=30000-"]
    assert seen[-1] == (len(content), len(content))


def test_a_server_without_ranges_sends_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.files["file"], server.ranges, server.break_after = b"0123456789", False, 4
    with pytest.raises(DemoError, match="4 bytes are kept"):
        download(f"{server.url}/file", tmp_path / "file", ignore)
    download(f"{server.url}/file", tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_part_that_is_already_whole_is_taken(server: FileServer, tmp_path: Path) -> None:
    server.files["file"] = b"0123456789"
    (tmp_path / "file.part").write_bytes(b"0123456789")
    download(f"{server.url}/file", tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_refusal_names_the_address_and_the_status(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=rf"{server.url}/gone responded with HTTP 404"):
        download(f"{server.url}/gone", tmp_path / "gone", ignore)


def test_a_data_set_is_unpacked_checked_and_then_found(server: FileServer, tmp_path: Path) -> None:
    server.files["dogs.zip"] = zipped(*DOGS, "__MACOSX/dogs/train/001.A/._a.jpg")

    folder = fetch_dataset(tmp_path, ignore, archive(server))

    assert folder == tmp_path / "data" / "dogs"
    assert (folder / "train" / "002.B" / "b.jpg").read_text() == "image dogs/train/002.B/b.jpg"
    assert fetch_dataset(tmp_path, ignore, archive(server)) == folder
    assert len(server.asked) == 1


def test_a_data_set_with_missing_images_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.files["dogs.zip"] = zipped(*DOGS)
    with pytest.raises(DemoError, match=r"train holds 2 images of 2 classes, and 3 of 2 belong there"):
        fetch_dataset(tmp_path, ignore, archive(server, images=3))


def test_an_archive_that_would_fill_the_disk_is_refused(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["dogs.zip"] = zipped(*DOGS)
    monkeypatch.setattr("demo.downloads.MOST_BYTES", 50)
    with pytest.raises(DemoError, match=r"damaged archive \(more than .* or 50 bytes\)"):
        fetch_dataset(tmp_path, ignore, archive(server))
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_damaged_archive_is_removed(server: FileServer, tmp_path: Path) -> None:
    server.files["dogs.zip"] = zipped(*DOGS)[:-40]
    with pytest.raises(DemoError, match="damaged archive"):
        fetch_dataset(tmp_path, ignore, archive(server))
    assert not list(tmp_path.rglob("*.zip"))


def test_weights_are_checked_by_the_hash_in_their_name(server: FileServer, tmp_path: Path) -> None:
    content = b"weights" * 1000
    name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    assert fetch_weights(tmp_path, f"{server.url}/{name}", ignore).read_bytes() == content


def test_weights_with_another_hash_are_refused_and_removed(server: FileServer, tmp_path: Path) -> None:
    server.files["resnet50-0123abcd.pth"] = b"something else"
    with pytest.raises(DemoError, match=r"not 0123abcd"):
        fetch_weights(tmp_path, f"{server.url}/resnet50-0123abcd.pth", ignore)
    assert not list(tmp_path.rglob("*.pth"))


def test_an_address_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"http://127\.0\.0\.1:1/file cannot be fetched .* internet access"):
        download("http://127.0.0.1:1/file", tmp_path / "file", ignore)
