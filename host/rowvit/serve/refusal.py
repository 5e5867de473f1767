# SPDX-License-Identifier: Apache-2.0
"""Requests that get no result."""

from __future__ import annotations

from rowvit.errors import RowvitError


class Refusal(RowvitError):
    """Why a request gets no result, and the HTTP status that says so.

    Parameters
    ----------
    status : int
    message, advice : str
        As of `RowvitError`.
    retry_after : int, optional
        Seconds after which the same request may succeed.
    """

    def __init__(self, status: int, message: str, advice: str = "", retry_after: int | None = None) -> None:
        super().__init__(message, advice)
        self.status, self.retry_after = status, retry_after
