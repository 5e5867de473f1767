# SPDX-License-Identifier: Apache-2.0
"""Reader and writer of safetensors files in NumPy alone.

A file is: the header's length (uint64, little endian), the header (JSON: name -> dtype, shape and
byte range, plus ``__metadata__`` with strings), the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError, replacing

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000  # the safetensors format's own limit


def digest(meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over a description and all tensors, as 64 hex digits."""
    sha = hashlib.sha256(json.dumps(meta, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\n{name} {tensor.dtype.name} {list(tensor.shape)}\n".encode())
        sha.update(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


def parse(text: str | bytes, strict: bool = True) -> Any:
    """What JSON says; `ValueError` if it is none, or, if strict, has what its standard has not: numbers that
    are not finite, and characters that are not of UTF-8.
    """
    try:
        found = json.loads(text)
        if strict:
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error
    return found


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write tensors and string metadata, as `encode`, or nothing; `RowvitError` if that cannot be."""
    data = encode(path, tensors, metadata)
    with replacing(path) as file:
        file.write_bytes(data)


def encode(
    name: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> bytes:
    """The file of tensors and string metadata; equal contents make equal bytes.

    `RowvitError`, which starts with ``name``, if the format has no such dtype as a tensor's.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    chunks: list[bytes] = []
    offset = 0
    # widest type first: every tensor is aligned to its own item size
    for key, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        dtype = tensor.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise RowvitError(f"{name}: safetensors cannot hold tensor {key!r} of type {tensor.dtype}")
        chunk = np.ascontiguousarray(tensor, dtype).tobytes()
        header[key] = {
            "dtype": _NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(chunk)],
        }
        chunks.append(chunk)
        offset += len(chunk)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *chunks])


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Metadata of a safetensors file, of which only the header is read; empty if it is no such file."""
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            found = parse(file.read(length)).get("__metadata__", {}) if length <= _MAX_HEADER else {}
    except (OSError, ValueError, AttributeError):
        return {}
    return (
        {name: text for name, text in found.items() if isinstance(text, str)}
        if isinstance(found, dict)
        else {}
    )


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `RowvitError` if it is missing, cut short or malformed."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RowvitError(f"{path}: cannot be read ({error.strerror})") from error
    return decode(path, data)


def decode(path: str | os.PathLike[str], data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a safetensors file's bytes; `RowvitError`, which starts with ``path``, if they
    are cut short or malformed.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > _MAX_HEADER:
        raise RowvitError(f"{path}: not a safetensors file")
    if len(data) < 8 + length:
        raise RowvitError(f"{path}: truncated in the header ({len(data)} bytes)", "copy the file again")
    try:
        header = parse(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if odd := {str(entry["dtype"]) for entry in header.values()} - _DTYPES.keys():
            raise RowvitError(
                f"{path}: holds tensors of type {min(odd)}, and is no file of rowvit",
                "rowvit import makes a network of a checkpoint",
            )
        entries = [(name, *_place(entry)) for name, entry in header.items()]
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError("metadata values are strings")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RowvitError(f"{path}: not a safetensors file, its header is not readable") from error
    tensors = {}
    body = memoryview(data)[8 + length :]
    for name, dtype, shape, begin, end in entries:
        if begin < 0 or end > len(body):
            raise RowvitError(f"{path}: truncated, tensor {name!r} ends beyond it", "copy the file again")
        try:
            if min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError("another number of bytes")
            tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(shape)
        except ValueError as error:  # NumPy's, of a size 0 with more dimensions or larger ones than it takes
            raise RowvitError(f"{path}: shape and bytes of tensor {name!r} do not agree") from error
    return tensors, metadata


def _place(entry: Mapping[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Dtype, shape and range of bytes of a tensor, from its entry in the header."""
    begin, end = map(int, entry["data_offsets"])
    return _DTYPES[entry["dtype"]], tuple(map(int, entry["shape"])), begin, end
