# SPDX-License-Identifier: Apache-2.0
"""The command ``rowvit``: one module for each family of commands, registered in the order of its help."""

from importlib import import_module

from rowvit.cli.common import app

for _module in ("run", "model", "fits", "train", "networks", "measure", "serve", "hardware", "doctor"):
    import_module(f"rowvit.cli.{_module}")

__all__ = ["app"]
