# SPDX-License-Identifier: Apache-2.0
"""What requests say behind their question mark, and in their bodies."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from rowvit.serve.refusal import Refusal

for _limit in ("spool_max_size", "max_file_size"):  # by Starlette's version: no picture goes to the disk
    if hasattr(MultiPartParser, _limit):
        setattr(MultiPartParser, _limit, 1 << 40)
_FORM = "multipart/form-data"  # curl calls whatever --data-binary sends a form, too
_PLAIN = ("", "identity")  # encodings of bodies that are not packed
_NAME = 120  # characters of a file's name


def flag(request: Request, name: str, default: bool = False) -> bool:
    """True or false; `Refusal` 400 for anything else."""
    value = request.query_params.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise Refusal(400, f"{name} is '{value[:20]}'", "use true or false")
    return value in ("true", "1")


def seconds(request: Request) -> float | None:
    """That the client gives the server, if it says so; `Refusal` 400 if they are no time."""
    text = request.query_params.get("timeout")
    try:
        found = float(text) if text is not None else None
    except ValueError:
        found = 0.0
    if found is not None and not 0 < found < float("inf"):
        raise Refusal(400, f"timeout is '{str(text)[:20]}'", "use seconds, more than 0")
    return found


async def body(request: Request) -> bytes:
    """The body as it was before its Content-Encoding; it counts among what the server holds.

    `Refusal` as of `decompressed`, 413 and 429 as of any body.
    """
    raw = await request.body()
    limit = request.app.state.service.largest(request.scope["path"])
    found = decompressed(raw, _encoding(request), limit)
    if found is not raw:
        request.state.hold(len(found))
    return found


def _encoding(request: Request) -> str:
    """How the body is packed, as it may be written in capitals."""
    return request.headers.get("content-encoding", "").strip().lower()


def decompressed(raw: bytes, encoding: str, limit: int) -> bytes:
    """The body of a request as it was before its Content-Encoding.

    `Refusal` 415 for an encoding that is not known, 400 for data that is damaged, 413 for more than ``limit``
    bytes.
    """
    bits = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding)
    if encoding in _PLAIN:
        return raw
    if bits is None:
        raise Refusal(415, f"Content-Encoding '{encoding[:20]}' is not known", "use gzip, deflate or none")
    stream = zlib.decompressobj(bits)
    try:
        data = stream.decompress(raw, limit + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is no complete {encoding} data", "send it again") from error
    if len(data) > limit:
        raise Refusal(413, f"the body is larger than {limit:,} bytes", "send fewer images at once")
    if not stream.eof:
        raise Refusal(400, f"the body is no complete {encoding} data", "send it again")
    return data


@asynccontextmanager
async def form(request: Request) -> AsyncIterator[FormData]:
    """A form with one file at most, which is open in this context, and is in memory once."""
    packed = _encoding(request) not in _PLAIN
    data = await body(request) if packed else b""

    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    given = Request(request.scope, receive) if packed else request
    try:
        found = await given.form(max_files=1, max_fields=16)
    except HTTPException as error:  # in the library's words
        several = str(error.detail).startswith("Too many files")
        what = "the form has several files" if several else f"the form cannot be read ({error.detail})"
        raise Refusal(400, what, "send one file, as curl -F file=@photo.jpg does") from error
    try:
        yield found
    finally:
        await found.close()


async def picture(request: Request) -> tuple[bytes, str]:
    """The picture that a request brings, as its body or as a form's file, and the file's name, if any."""
    if not request.headers.get("content-type", "").startswith(_FORM):
        return await body(request), ""
    async with form(request) as fields:
        for field in fields.values():
            if isinstance(field, UploadFile):
                return await field.read(), named(field)
    raise Refusal(400, "the form has no file", "send one, as curl -F file=@photo.jpg does")


def named(file: UploadFile) -> str:
    """The name of a file, without folders."""
    name = PurePath((file.filename or "").replace("\\", "/")).name[-_NAME:]
    return name if name.isprintable() else ""
