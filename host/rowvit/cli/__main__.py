# SPDX-License-Identifier: Apache-2.0
"""``python -m rowvit.cli``: the command ``rowvit`` for torchrun."""

from rowvit.cli import app

app()
