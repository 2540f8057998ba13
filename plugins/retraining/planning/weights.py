"""Pretrained weights in S3: which file a run starts from, and whether it can belong to the architecture.

Only the names of the tensors are read, a few kilobytes however large the file, and no pickle is executed.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from retraining.errors import PlanError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

SUFFIXES = (".pth", ".pt", ".safetensors")
_HEADER_LIMIT = 100 * 1024 * 1024  # of the safetensors format
_TENSOR_NAME = re.compile(r"[\w.]+\.(weight|bias|running_mean|running_var)|class_token")


@dataclass(frozen=True)
class Signature:
    """A tensor that weights of the architectures `arch` have, and one that only their relatives have."""

    arch: str
    present: str
    absent: str | None = None


# From torchvision's own modules: the first match of an architecture's name counts; one without a match is not
# checked.
SIGNATURES = (
    Signature("resnet18", "layer1.1.conv2.weight", "layer1.2.conv1.weight"),
    Signature("resnet34", "layer3.5.conv2.weight", "layer1.0.conv3.weight"),
    Signature("(wide_)?res(net|next)50.*", "layer1.2.conv3.weight", "layer3.6.conv1.weight"),
    Signature("(wide_)?res(net|next)101.*", "layer3.22.conv3.weight", "layer2.4.conv1.weight"),
    Signature("resnet152", "layer3.35.conv3.weight"),
    Signature("squeezenet1_0", "features.5.squeeze.weight", "features.6.squeeze.weight"),
    Signature("squeezenet1_1", "features.6.squeeze.weight", "features.5.squeeze.weight"),
    Signature("alexnet", "features.10.weight", "features.12.weight"),
    Signature("vgg.*", "features.0.weight", "features.3.squeeze.weight"),
    Signature("densenet.*", "features.denseblock1.denselayer1.conv1.weight"),
    Signature("mobilenet_v2", "features.1.conv.0.0.weight"),
    Signature("mobilenet_v3.*", "features.1.block.0.0.weight"),
    Signature("efficientnet.*", "features.1.0.block.0.0.weight"),
    Signature("convnext.*", "features.1.0.block.0.weight"),
    Signature("swin.*", "features.1.0.attn.qkv.weight"),
    Signature("shufflenet.*", "stage2.0.branch1.0.weight"),
    Signature("vit_.*", "encoder.layers.encoder_layer_0.ln_1.weight"),
    Signature("regnet.*", "stem.0.weight"),
    Signature("googlenet", "inception3a.branch1.conv.weight"),
    Signature("inception_v3", "Mixed_5b.branch1x1.conv.weight"),
)


def find_weights(s3: S3Client, bucket: str, prefix: str, arch: str) -> str | None:
    """The URI of the one weights file under `<prefix>/<arch>/`, or None where there is none.

    Raises PlanError where there are several, or where the file cannot hold the architecture's weights.
    """
    folder = f"{prefix.strip('/')}/{arch}/"
    contents = s3.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=10).get("Contents", [])
    keys = [entry["Key"] for entry in contents if not entry["Key"].endswith("/")]
    if not keys:
        return None
    uri = f"s3://{bucket}/{keys[0]}"
    if len(keys) > 1:
        raise PlanError(
            f"s3://{bucket}/{folder} holds {len(keys)} files ({', '.join(keys)}); leave the one to start "
            "from."
        )
    if not keys[0].endswith(SUFFIXES):
        raise PlanError(f"{uri} is no weights file; one that ends in {' or '.join(SUFFIXES)} is expected.")
    check_weights(io.BufferedReader(_S3File(s3, bucket, keys[0])), uri, arch)
    return uri


def check_weights(file: IO[bytes], name: str, arch: str) -> None:
    """Raises PlanError if the file is unreadable or its tensors are not those of `arch`."""
    try:
        tensors = tensor_names(file, name)
    except (ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise PlanError(f"{name} cannot be read as weights ({error}); upload the file again.") from error
    signature = next((s for s in SIGNATURES if re.fullmatch(s.arch, arch)), None)
    if signature is None:
        return
    if signature.present not in tensors or (signature.absent in tensors):
        found = next((s.arch for s in SIGNATURES if s.present in tensors and s.absent not in tensors), None)
        hint = f"it looks like {found}" if found else f"it has no tensor {signature.present}"
        raise PlanError(
            f"{name} does not hold weights of {arch}: {hint}. Choose that architecture, or put {arch}'s "
            "weights there."
        )


def tensor_names(file: IO[bytes], name: str) -> set[str]:
    """Names of the tensors in a .safetensors file or in a state dict saved by torch (zip or the older
    format).
    """
    if name.endswith(".safetensors"):
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= _HEADER_LIMIT:
            raise ValueError("no safetensors header")
        return set(json.loads(file.read(size))) - {"__metadata__"}
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    names = _names_in_zip(file) if is_zip else _names_in_pickles(file, count=4)
    if not names:
        raise ValueError("it holds no tensors by name")
    return {text.removeprefix("module.") for text in names}


def _names_in_zip(file: IO[bytes]) -> set[str]:
    with zipfile.ZipFile(file) as archive:
        member = next(entry for entry in [*archive.namelist(), ""] if entry.endswith("data.pkl") or not entry)
        if not member:
            raise ValueError("a zip file without data.pkl")
        with archive.open(member) as pickle:
            return _names_in_pickles(pickle, count=1)


def _names_in_pickles(file: IO[bytes], count: int) -> set[str]:
    """The strings in consecutive pickles that read like tensors' names; torch's older format has four
    pickles.
    """
    strings: set[str] = set()
    for _ in range(count):
        for _, argument, _ in pickletools.genops(file):
            if isinstance(argument, str):
                strings.add(argument)
    return {text for text in strings if _TENSOR_NAME.fullmatch(text)}


class _S3File(io.RawIOBase):
    """An S3 object as a seekable file: read in blocks, the last of which is kept."""

    BLOCK = 256 * 1024

    def __init__(self, s3: S3Client, bucket: str, key: str) -> None:
        self._s3, self._bucket, self._key = s3, bucket, key
        self._size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        self._position = 0
        self._block: tuple[int, bytes] = (0, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._at(self._position)[: len(view)]
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def _at(self, position: int) -> bytes:
        """What the file holds from `position` on: at least one byte, unless it is at its end."""
        start, content = self._block
        if not start <= position < start + len(content):
            if position >= self._size:
                return b""
            last = min(position + self.BLOCK, self._size) - 1
            answer: Any = self._s3.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={position}-{last}"
            )
            start, content = self._block = (position, answer["Body"].read())
        return content[position - start :]
