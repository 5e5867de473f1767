# SPDX-License-Identifier: Apache-2.0
"""What the core does while it runs, as far as it costs energy: counts, and what a count is made of.

The simulator counts it in the RTL (``sim/activity.sv``), `rowvit.cycles.activity` predicts it from a program.
`memories` and `operations` say what the counts mean for a configuration: `rowvit.measure.energy` prices them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import COUNTERS
from rowvit.hardware.pipeline import LOAD_FIFO, NORM_ROWS

#: counts by name; the first four are registers of the core, the others exist in the simulator only
COUNTS = {
    "fires": "lane groups that multiplied, once for each cycle",
    "axi_beats": "64-bit words that the core read from DDR",
    "recv_words": "64-bit words of the input, which the DMA read from DDR",
    "send_words": "64-bit words of the output, which the DMA wrote to DDR",
    "weight_reads": "lines of LANES bytes read from the weight memory, of all groups",
    "weight_bytes": "bytes written to it: loads, K and V",
    "token_reads": "64-bit words read from the token memory, of all banks",
    "token_writes": "and written",
    "residual_reads": "16-bit words read from the residual memory, of all banks",
    "residual_writes": "and written",
    "parameter_writes": "biases and multipliers loaded",
    "norm_parameter_writes": "gains and biases of LayerNorm loaded",
    "rotary_writes": "entries of the table of rotations, and places, loaded",
    "mask_reads": "words of LANES bits read from FFN2's mask",
    "mask_writes": "and written",
    "drained": "lanes that the drain requantised, each of all rows and groups",
    "rotated": "those of them that were rotated or gated",
    "residual_sums": "those of them that were added to the residual stream",
    "logits": "attention logits stored, each of all rows and groups",
    "exponentials": "attention logits read and exponentiated, likewise",
    "reciprocals": "reciprocals of a band's sums, likewise",
    "scores": "shares added to a token's score",
    "score_reads": "scores read by a selection",
    "selected": "tokens that stayed",
    "gathers": "bands whose rows were looked up in the selection table",
    "norm_parts": "parts of a band whose statistics LayerNorm made",
    "norm_sums": "channels that it summed, each of all rows of a part and all groups",
    "norm_values": "channels that it normalised, likewise",
}
#: those that are registers
REGISTERS = [name for name, _ in COUNTERS if name in COUNTS]


class Storage(NamedTuple):
    """Memories of one kind; reads and writes are those of all of them together."""

    name: str
    bits: int  #: of a word
    words: int  #: of each memory
    copies: int  #: memories
    reads: float  #: words; parts of a word are fractions
    writes: float  #: likewise


class Operations(NamedTuple):
    """Arithmetic of one kind."""

    name: str
    number: float
    #: of each: bits of the factors of every product
    products: tuple[tuple[int, int], ...] = ()
    sums: tuple[int, ...] = ()  #: of each: bits of every sum, difference or comparison
    registers: int = 0  #: of each: bits of the accumulator that takes the result


def memories(config: HardwareConfig, counts: Mapping[str, float]) -> list[Storage]:
    """The configuration's memories, and their reads and writes.

    Left out are queues and buffers of at most 16 words, other registers, and the places of rotary positions.
    """
    lanes, rows, groups = config.lanes, config.rows, config.groups
    banks, slot = rows * groups, lanes * -(-config.max_dim // config.tile)
    tokens, addresses = config.max_tokens, config.max_tokens.bit_length()
    c = counts
    found = [
        Storage(
            "weight", 8 * lanes, config.weight_depth, groups, c["weight_reads"], c["weight_bytes"] / lanes
        ),
        Storage("token", 64, config.token_depth, rows, c["token_reads"], c["token_writes"]),
        Storage("residual", 16, config.residual_depth, banks, c["residual_reads"], c["residual_writes"]),
        Storage(
            *("parameters", 42, config.param_slots * lanes, groups),
            *(c["drained"] * groups, c["parameter_writes"]),
        ),
        Storage(
            *("norm parameters", 48, config.norm_slots * slot, groups),
            *(c["norm_values"] * groups, c["norm_parameter_writes"]),
        ),
        Storage("logits", 12, 2 * tokens, banks, c["exponentials"] * banks, c["logits"] * banks),
        Storage("exponentials", 8, 256, banks, c["exponentials"] * banks, 0),
        Storage("scores", 24, tokens, 1, c["scores"] + c["score_reads"], c["scores"]),
        Storage(
            *("selection table", addresses, tokens, rows + 1),
            *(c["selected"] + c["gathers"] * rows, c["selected"] * (rows + 1)),
        ),
        Storage("mask", lanes, config.mask_depth, 1, c["mask_reads"], c["mask_writes"]),
        Storage("read buffer", 64, LOAD_FIFO, config.port_bits // 64, c["axi_beats"], c["axi_beats"]),
    ]
    if config.rotary_tokens:
        reads = c["rotated"] * rows
        found.append(Storage("rotary table", 32, 32 * lanes // 2, rows // 2, reads, c["rotary_writes"]))
    return found


def operations(config: HardwareConfig, counts: Mapping[str, float]) -> list[Operations]:
    """The arithmetic of a configuration; widths are those of docs/numerics.md."""
    banks = config.rows * config.groups
    norm_rows = min(config.rows, NORM_ROWS)
    norm_lanes = norm_rows * config.groups
    divide = 17  # steps of a reciprocal, each a difference
    return [
        Operations("multiply-accumulate", counts["fires"] * config.lanes, ((8, 9),), (26,), 26),
        Operations("requantise", counts["drained"] * banks, ((25, 17),), (27, 17)),
        Operations("rotate or gate", counts["rotated"] * banks, ((16, 16), (16, 16)), (32, 32)),
        Operations("residual sum", counts["residual_sums"] * banks, (), (17,)),
        Operations("maximum", counts["logits"] * banks, (), (12,)),
        Operations("exponential", counts["exponentials"] * banks, (), (12, 18)),
        Operations("reciprocal of a sum", counts["reciprocals"] * banks, (), (18,) * divide),
        Operations("token score", counts["scores"], ((17, 8),), (24,)),
        Operations("selection", counts["score_reads"], (), (24,)),
        Operations("LayerNorm sums", counts["norm_sums"] * norm_lanes, ((16, 16),), (26, 41)),
        Operations(
            "LayerNorm of a row",
            counts["norm_parts"] * norm_rows,
            ((41, 8), (26, 26)),
            (52, *(29,) * 26, *(27,) * divide),
        ),
        Operations(
            "LayerNorm values",
            counts["norm_values"] * norm_lanes,
            ((16, 11), (17, 17), (16, 16)),
            (27, 34),
        ),
    ]
