# SPDX-License-Identifier: Apache-2.0
"""The command ``rowvit``: one module for each family of commands, registered in the order of its help."""

from rowvit.cli import run, profile, model, importing, train, relu, quantise, bench, power, report  # noqa: F401, I001
from rowvit.cli import board, hardware  # noqa: F401
from rowvit.cli.common import app

__all__ = ["app"]
