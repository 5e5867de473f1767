# SPDX-License-Identifier: Apache-2.0
"""The command ``rowvit``: one module for each family of commands, registered in the order of its help."""

from importlib import import_module

from rowvit.cli.common import app

_RUNNING = ("run", "profile", "model")
_NETWORKS = ("importing", "train", "relu", "prune", "quantise")
_MEASURING = ("bench", "power", "report")
_HARDWARE = ("board", "hardware")
for _module in (*_RUNNING, *_NETWORKS, *_MEASURING, *_HARDWARE):
    import_module(f"rowvit.cli.{_module}")

__all__ = ["app"]
