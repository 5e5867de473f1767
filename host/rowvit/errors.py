# SPDX-License-Identifier: Apache-2.0
"""The one exception that rowvit raises for what a user can put right."""


class RowvitError(Exception):
    """A sentence that names what is wrong, where, and what to do about it."""
