"""Reads weights files, torchvision's state dicts (.pth) and safetensors, without executing code from them.

Safetensors is implemented here because AWS's inference containers lack its library and a model must be
servable without downloads. The format: the header's length as a little-endian uint64, a JSON header with
dtype, shape and byte range of each tensor, then the bytes
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from classifier.errors import ModelValueError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_DAMAGE = (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, struct.error, pickle.PickleError)
"""What reading a damaged file raises."""


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pth or .safetensors file by name, on the CPU. Raises ModelValueError."""
    try:
        weights: Any = (
            _from_safetensors(file.read_bytes())
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except _DAMAGE as error:
        raise ModelValueError(
            f"{file.name} cannot be read as weights: give a state dict saved with torch.save (.pth) "
            "or a .safetensors file"
        ) from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise ModelValueError(
            f"{file.name} holds no state dict: save model.state_dict(), not the model or a checkpoint"
        )
    return dict(weights)


def to_safetensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors as the content of a safetensors file; equal tensors give equal bytes."""
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        chunk = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(chunk)],
        }
        chunks.append(chunk)
        offset += len(chunk)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return b"".join([struct.pack("<Q", len(encoded)), encoded, *chunks])


def _from_safetensors(content: bytes) -> dict[str, torch.Tensor]:
    (header_length,) = struct.unpack_from("<Q", content)
    start = 8 + header_length
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {name: _tensor(entry, memoryview(content)[start:]) for name, entry in header.items()}


def _tensor(entry: Mapping[str, Any], data: memoryview) -> torch.Tensor:
    begin, end = entry["data_offsets"]
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    if end > len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("the header does not match the file's length")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
