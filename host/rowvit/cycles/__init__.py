# SPDX-License-Identifier: Apache-2.0
"""How many cycles a program takes, without running it: a discrete-event model of the engines.

Every engine is a coroutine that advances one band, tile or piece of a load at a time, in order of time, and
waits where its instruction says so. What depends on data (tokens alive, non-zeros, rows of W2) comes as
`LayerStatistics`, from the integer reference or assumed. The constants are the pipeline lengths of the RTL
(`rowvit.hardware.pipeline`); ``tests/network/test_cycle_model.py`` compares with the RTL.
"""

from rowvit.cycles.model import predict
from rowvit.cycles.prediction import LayerTimes, Prediction, Slice
from rowvit.cycles.statistics import LayerStatistics, Statistics, assumed, measured
from rowvit.hardware.memory import Memory

__all__ = [
    "LayerStatistics",
    "LayerTimes",
    "Memory",
    "Prediction",
    "Slice",
    "Statistics",
    "assumed",
    "measured",
    "predict",
]
