# SPDX-License-Identifier: Apache-2.0
"""Depths of queues and lengths of pipelines in the RTL, in cycles: what the cycle model knows of it."""

from __future__ import annotations

QUEUE_DEPTH = 16  # instructions per engine
PREFETCH = 5  # instructions fetched ahead of the dispatcher
LOAD_FIFO = 128  # words that the reader holds for the load engine
BURSTS, BURST_WORDS = 8, 16  # reads in flight
SEARCH_SCANS = 17  # passes over the scores of a selection, typically

# -- pipeline lengths -----------------------------------------------------------------------------
READ = 11  # load engine and reader, besides the memory's latency
REACT = 9  # an operation's dependencies are met -> its first scalar fires
REACT_BAND = 7  # the same for a later band
REACT_SPARSE = 13  # the same for a compressed tile
CAPTURE = 9  # last scalar -> the drain begins
NEAR_END = 7  # the shadow accumulators are free so long before the drain ends
RESIDUAL_STAGE = 6  # drain's lane -> its read of the residual memory
SOFTMAX, SOFTMAX_GROUP = 24, 5  # last S -> P and reciprocals complete, besides a cycle per token
SCORE = 10  # per head of a pruning layer's first band, besides a cycle per token
NORM_SUM = 8  # last channel read -> sums complete
NORM_ROW = 36  # statistics, per row after the first
NORM_STATS = 86
NORM_OUT = 22  # last channel read -> written
