"""Fetches what the demonstration can use when there is internet access: a dataset and pretrained weights.

A download goes on where an interrupted one ended, and counts only once it has been checked.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.settings import DemoError

TIMEOUT_SECONDS = 60.0
MOST_MEMBERS, MOST_BYTES = 20_000, 4 * 2**30  # of a dataset, unpacked; dogImages has 8,351 images of 1.1 GB
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")  # how torch.hub names a weights file by its SHA-256
WEIGHTS_URL_SCRIPT = """
import sys
from torchvision.models import get_model_weights
print(get_model_weights(sys.argv[1]).DEFAULT.url)
"""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Archive:
    """A dataset in a zip file: its address, its only folder, and what must be in it."""

    url: str
    folder: str
    classes: int
    images: Mapping[str, int]


DOG_IMAGES = Archive(  # the dog project of Udacity's AI nanodegree
    url="https://s3-us-west-1.amazonaws.com/udacity-aind/dog-project/dogImages.zip",
    folder="dogImages",
    classes=133,
    images={"train": 6680, "valid": 835, "test": 836},
)


def download(url: str, target: Path, progress: Progress) -> None:
    """Fetch `url` into `target`, from where an earlier attempt ended; progress is told bytes done and in all.

    Raises DemoError where the server refuses or the connection breaks; what has arrived is kept.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(url, part, progress)
    except httpx.HTTPError as error:
        kept = part.stat().st_size if part.exists() else 0
        if not kept:
            raise DemoError(f"{url} cannot be fetched ({error}); is there internet access?") from error
        raise DemoError(
            f"{url} broke off ({type(error).__name__}: {error}); {kept:,} bytes are kept, "
            "the same command goes on from there"
        ) from error
    part.replace(target)


def fetch(url: str, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with httpx.stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS
    ) as response:
        total = total_bytes(response, done)
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and done == total:
            return
        if response.is_error:
            raise DemoError(f"{url} responded with HTTP {response.status_code}; is the address still right?")
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = done if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            for block in response.iter_raw():
                file.write(block)
                done += len(block)
                progress(done, total)
        if total and done != total:
            raise httpx.RemoteProtocolError(f"{done:,} of {total:,} bytes arrived")


def total_bytes(response: httpx.Response, done: int) -> int:
    """The whole file's length; 0 where the server does not tell it."""
    if match := re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", "")):
        return int(match[1])
    length = int(response.headers.get("Content-Length", 0))
    return done + length if response.status_code == httpx.codes.PARTIAL_CONTENT else length


def check_dataset(folder: Path, archive: Archive) -> None:
    """Raise DemoError unless every split has the classes and the number of images it is known to have."""
    for split, images in archive.images.items():
        classes = [path for path in folder.glob(f"{split}/*") if path.is_dir()]
        found = sum(path.is_file() and not path.name.startswith(".") for path in folder.glob(f"{split}/*/*"))
        if (len(classes), found) != (archive.classes, images):
            raise DemoError(
                f"{folder / split} holds {found} images of {len(classes)} classes, and {images} of "
                f"{archive.classes} belong there. Remove {folder} and run make dataset again"
            )


def check_size(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raises BadZipFile for an archive that would fill the disk."""
    if len(members) > MOST_MEMBERS or sum(one.file_size for one in members) > MOST_BYTES:
        raise zipfile.BadZipFile(f"more than {MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes")


def fetch_dataset(local: Path, progress: Progress, archive: Archive = DOG_IMAGES) -> Path:
    """The dataset's folder below `local`, downloaded and unpacked where it is not there yet."""
    folder = local / "data" / archive.folder
    if folder.exists():
        check_dataset(folder, archive)
        return folder
    packed = local / "downloads" / f"{archive.folder}.zip"
    if not packed.exists():
        download(archive.url, packed, progress)
    unpacked = local / "downloads" / archive.folder
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        with zipfile.ZipFile(packed) as file:
            members = [one for one in file.infolist() if one.filename.startswith(f"{archive.folder}/")]
            check_size(members)
            file.extractall(packed.parent, members)
    except zipfile.BadZipFile as error:
        packed.unlink()
        raise DemoError(
            f"{archive.url} gave a damaged archive ({error}); it was removed, try again"
        ) from error
    check_dataset(unpacked, archive)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unpacked.rename(folder)
    packed.unlink()
    return folder


def weights_url(python: Path, arch: str) -> str:
    """Where torchvision's default weights of an architecture are; asks the torchvision of the environment."""
    response = subprocess.run(
        [python, "-c", WEIGHTS_URL_SCRIPT, arch], capture_output=True, text=True, check=False
    )
    if response.returncode:
        reason = response.stderr.strip().splitlines()[-1:]
        raise DemoError(f"torchvision has no weights for ARCH={arch}: {' '.join(reason)}")
    return response.stdout.strip()


def check_hash(path: Path) -> None:
    """Raise DemoError, and remove the file, unless its SHA-256 begins as its name says."""
    match = HASH_IN_NAME.search(path.name)
    if match is None:
        raise DemoError(f"The name of {path.name} carries no hash (name-<hash>.pth), so it cannot be checked")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[1]):
        path.unlink()
        raise DemoError(
            f"{path.name} has the SHA-256 {digest[:16]}…, not {match[1]}…; it was removed, try again"
        )


def fetch_weights(local: Path, url: str, progress: Progress) -> Path:
    """The weights file below `local`, downloaded where it is not there yet, and checked either way."""
    path = local / "weights" / url.rpartition("/")[2]
    if not path.exists():
        download(url, path, progress)
    check_hash(path)
    return path
