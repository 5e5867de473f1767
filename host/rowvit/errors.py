# SPDX-License-Identifier: Apache-2.0
"""The one exception that rowvit raises for anything a user can put right."""


class RowvitError(Exception):
    """One sentence that says what is wrong, where, and what to do about it."""
