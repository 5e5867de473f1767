# SPDX-License-Identifier: Apache-2.0
"""Depths of queues and lengths of pipelines, in cycles: the RTL's, as far as the cycle model needs them.

`rowvit.hardware.generate` hands `RTL` and `drain_done` to the RTL (``rtl/rowvit_defs.vh``). The other lengths
are sums of registers in several modules, which no constant in the RTL could set; the cycle model's tests hold
them.
"""

from __future__ import annotations

QUEUE_DEPTH = 16  # instructions per engine; one more is in the register at the queue's head
FETCHES = 7  # instructions requested and not complete yet
PROGRAM_FIFO = 32  # words that the reader holds for the dispatcher
LOAD_FIFO = 128  # words that the reader holds for the load engine
BURSTS, BURST_WORDS = 8, 16  # reads in flight
MAX_GROUPS = 6  # lane groups that the drain can serve
TILE_QUEUE = 8  # tiles announced to fetchers, issue stage and drain
SEARCH_SCANS = 17  # passes over the scores of a selection, typically

# -- pipeline lengths -----------------------------------------------------------------------------
DISPATCH = 11  # instruction fetched -> at the head of its queue
INSTRUCTION = 2  # from one instruction dispatched to the next, plus a cycle for each word of it
READ = 12  # load engine and reader, plus the memory's latency
GATHER_ROW, GATHER_WORD = 2, 8  # a gather's request side, per row and per mask word
REACT = 9  # an operation's dependencies are met -> its first scalar fires
REACT_BAND = 7  # the same for a later band
REACT_SPARSE = 15  # the same for a compressed tile
MULTIPLY = 7  # scalar fires -> product in its accumulator
REQUANTISE = 13  # drain's lane -> written
CAPTURE = 9  # last scalar -> the shadows are complete
BEGIN = CAPTURE - 2  # last scalar -> the drain begins, whose first lane is read two cycles later
# A tile's last scalar may fire this long before the drain of the tile before ends. The drain decides when
# CAPTURE - 1 lanes are left; the release takes a register, and a scalar fires at the end of a cycle.
NEAR_END = CAPTURE - 3
# Results of a rotated or gated tile are that much later; another one begins only ROTATE - 1 cycles behind it.
ROTATE = 4
RESIDUAL_STAGE = 7  # drain's lane -> its read of the residual memory
SCORED = 12  # drain's lane -> softmax
SOFTMAX, SOFTMAX_GROUP = 25, 5  # last S -> P and reciprocals complete, plus a cycle per token
SCORE = 11  # per head of a pruning layer's first band, plus a cycle per token
NORM_SUM = 11  # last channel read -> sums complete
NORM_ROWS = 4  # rows at once, at most; those of a larger band take turns
NORM_ROW = 36  # statistics, per row after the first
NORM_STATS = 86
NORM_OUT = 29  # last channel read -> written

#: what the RTL takes from here
RTL = [
    *("QUEUE_DEPTH", "FETCHES", "PROGRAM_FIFO", "LOAD_FIFO", "BURSTS", "BURST_WORDS", "TILE_QUEUE"),
    *("CAPTURE", "MAX_GROUPS", "ROTATE", "NORM_ROWS"),
]


def drain_done(groups: int) -> int:
    """Cycles from the drain's last lane to its last write, and so to the completion of the tile.

    Parameters
    ----------
    groups : int
        Of the configuration, at most `MAX_GROUPS`.
    """
    # pipeline, flush of the compressors, mask and words of all groups, which above 4 take turns for longer
    return 22 + (8 if groups > 4 else 4) * groups
