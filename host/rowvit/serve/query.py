# SPDX-License-Identifier: Apache-2.0
"""What addresses say behind their question mark."""

from __future__ import annotations

from starlette.requests import Request

from rowvit.serve.refusal import Refusal


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
