# SPDX-License-Identifier: Apache-2.0
"""The one table of instructions, registers, error codes and stream records.

`rowvit.hardware.generate` makes the RTL's constants (``rtl/rowvit_defs.vh``) and ``docs/isa.md`` from it;
host, compiler and disassembler use it directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError

ABI_VERSION = 6
ID = 0x524F5756  # "ROWV"
INSTRUCTION_BYTES = 64
NO_DEP = -0x8000
#: of an engine, in a pass: further on, the core would take NO_DEP for what is to come. It is 0x4000 below the
#: count at the pass's start, and 0x100 operations of the next pass may be complete, more than all queues hold
MAX_OPERATIONS = 0x3F00
#: what docs/isa.md says of the common slots and of data layouts
SEMANTICS = """\
Names in capitals that are no register's are parameters of `rtl/rowvit_top.v`, as a configuration sets them
(`rowvit config show`).

Passes. The program runs once per pass, which is for one image or for several. An instruction's `image` is its
image's number in the pass; live tokens are counted per image. A pass takes a packet per image from the input
stream, and sends one packet with the records of all its images. The end of a pass may run alongside the start
of the next one: instructions with the flag PREVIOUS belong to the pass before. In the first pass they are
void, and after the last pass the program runs once more, up to instruction `finish`, with all others void. A
void instruction does nothing but count as complete.

Selection. Tables of MAX_TOKENS entries hold the scores of tokens, and for every row that stays its
pre-selection row number, which a KEPT record has, too. Each image of a pass has its entries from `table` on.

Rotary positions. A configuration with them holds the places of ROTARY_TOKENS rows, two coordinates each, and
a table of rotations. Row i of a MATMUL with ROPE has place `table` + i; a SELECT moves the places of the rows
that stay from `from` on to `to` on, which is not behind it. Lanes 2p and 2p + 1 take entries 2q and 2q + 1
with q = a * LANES / 4 + p / 2, where a is the row's coordinate p % 2. An entry has the factors by which its
lane is added to lane 2p (first) and to lane 2p + 1 (second), with 14 fraction bits.

Gated FFN. A configuration with rotary positions has it, too. In a MATMUL with GATED lane 2p is the gate of
lane 2p + 1: it becomes 0, and 2p + 1 the product of both, or 0 if the gate is negative.

Dependencies. Every engine counts the operations it has completed since start. `dep[e] = X`
without chain: wait until engine e has completed X operations of this pass. With chain: before
band p, wait until engine e has completed X operations, or X - 1 and more than p bands of the
X-th; of LOAD, EXEC and SELECT, which do not count bands, X operations. `dep[e] = NO_DEP` (0x8000) is always
satisfied; negative values, from -16,383 on, reach into the previous pass. The numbers go round, and a pass
has at most 16,128 operations of an engine, so that none is taken for another. An instruction may depend
only on instructions before it in the program.

Weight lines. A multiplier takes the weights of an even lane and of the odd one after it as one number
w0 + 2^17 w1. A line holds, for every such pair, the bytes w0 and w1 - (w0 < 0); weights are in -127..127.

TOKENS records. Rows come in parts of ROWS, of 4 where ROWS is 8. Of a part, every residual address (lane tile
by lane tile) has one int16 for each (row, group), groups of row 0 first, padded to whole 64-bit words; rows
and groups that there are not are 0. So a part has LANES * ceil(dim / (LANES * GROUPS)) addresses of
ceil(rows * GROUPS / 4) words.

Residual addresses. An address comes as one int16 for each (row, group) bank, groups of row 0 first. With
one pair of banks it is padded to a 64-bit word; otherwise addresses follow each other without a gap.
"""


class Coded(IntEnum):
    """Members are a code and its meaning."""

    _value_: int
    meaning: str

    def __new__(cls, code: int, meaning: str = "") -> Coded:
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    __hash__ = int.__hash__  # Enum's hashes the name, in Python


_Code = TypeVar("_Code", bound=Coded)


class Engine(Coded):
    """Engines in the order of their dependency slots; slot = 3 + value."""

    LOAD = 0, "DDR to on-chip memories"
    EXEC = 1, "array: all operands of the operation have been read"
    DRAIN = 2, "array: all results of the operation have been written"
    NORM = 3, "LayerNorm, and records of tokens and residuals"
    SELECT = 4, "token selection"
    RECV = 5, "input stream to token memory"


class Op(Coded):
    """Opcodes, and the engine whose queue they enter."""

    HEADER = 1, "first instruction of a program: configuration hash"
    LOAD = 2, "LOAD"
    MATMUL = 3, "EXEC (and DRAIN)"
    ATTN = 4, "EXEC (and DRAIN)"
    NORM = 5, "NORM"
    SELECT = 6, "SELECT"
    RECV = 7, "RECV"
    END = 8, "last instruction of a program"


class Flag(Coded):
    """Bit positions in the flags slot."""

    SPARSE = 0, "MATMUL: the source is compressed segments"
    UNSIGNED = 1, "MATMUL: source scalars are uint8"
    GATHER = 2, "MATMUL: rows of source and residual come from the selection table; LOAD: masked rows only"
    ONE_ROW = 3, "MATMUL, NORM: only row 0, whatever the live count"
    SET_LIVE = 4, "MATMUL: set the image's live count to `rows`"
    MARK = 5, "MATMUL, ATTN: emit a MARK record when drained"
    LAST = 6, "MATMUL, NORM: its record ends the pass: TLAST, counter of passes, interrupt"
    SCORE_CLEAR = 7, "ATTN: start new token scores"
    SCORE = 8, "ATTN: add row 0's probabilities to the token scores"
    REST = 9, "LOAD with GATHER: not the rows of a second mask, which an earlier load has fetched"
    PREVIOUS = 10, "LOAD, MATMUL, NORM: belongs to the pass before"
    VOID = 11, "not in programs; set by the dispatcher: do nothing, and count as complete"
    JOIN = 12, "MATMUL to HIDDEN of fewer than `mask_bands` bands: its mask goes on in the next one's"
    ROPE = 13, "MATMUL to TOKEN or KEY: pairs of lanes are rotated by their row's place"
    GATED = 14, "MATMUL to HIDDEN: a pair of lanes is a gate, which gives 0, and what it multiplies"


class Dst(Coded):
    """Where MATMUL results go."""

    TOKEN = 0, "int8 to token memory"
    HIDDEN = 1, "ReLU, compressed segments to token memory, mask"
    KEY = 2, "int8 lane-major to weight memory (K transposed by placement)"
    VALUE = 3, "int8 row-major to weight memory"
    RESIDUAL = 4, "added to the residual memory"
    STREAM = 5, "int16 logits of row 0 to the output stream"


class LoadKind(Coded):
    """Where LOAD puts what it reads."""

    WEIGHT = 0, "rows of `groups` lines of LANES bytes (see above) to weight memory"
    PARAM = 1, "`groups` * LANES words {mult[47:32], bias[31:0]} to a parameter slot"
    NORM = 2, "`rows` words {g[47:32], b[31:0]}, channel order, to a norm slot"
    RESIDUAL = (
        3,
        "`rows` (even, and whole words of the port) residual addresses from `dst`, of every (row, group)"
        " bank; see above",
    )
    ROTATION = (
        4,
        "`rows` (even) words {second[31:16], first[15:0]}, entries of the table of rotations from `dst`",
    )
    PLACE = 5, "`rows` (even) words {coordinate 1[9:5], coordinate 0[4:0]}, places from `dst`"


class NormKind(Coded):
    LAYERNORM = 0, "residual rows to int8 rows in token memory"
    DUMP = 1, "residual rows to the output stream as a CHECKPOINT record"
    TOKENS = 2, "residual rows to int16 rows in the output stream as a TOKENS record; see above"


@dataclass(frozen=True)
class Field:
    """An operand of an instruction: its first slot, its meaning, and how many slots it has."""

    slot: int
    meaning: str
    slots: int = 1  #: how many


#: images that a pass may have: the slot of the opcode holds it, an image's number and a tag
MAX_IMAGES = 16
#: what both strides of a MATMUL with GATHER are below: one multiplier makes its rows' addresses
GATHER_STRIDE = 1 << 12
#: first slots of what all instructions have, and of an opcode's fields
OPCODE, FLAGS, CHAIN, DEPS = range(4)
OPERANDS = DEPS + len(Engine)
FIELDS: dict[Op, dict[str, Field]] = {
    Op.HEADER: {
        "config_hash": Field(9, "must equal the register CONFIG_HASH", slots=2),
        "abi": Field(11, "must equal the register ABI"),
        "finish": Field(12, "index of the last instruction with PREVIOUS; 0: there is none"),
    },
    Op.LOAD: {
        "kind": Field(9, "LoadKind"),
        "address": Field(10, "byte offset from the blob's base, multiple of PORT_BITS / 8", slots=2),
        "dst": Field(12, "weight line, parameter slot, norm slot, residual address, entry or place"),
        "rows": Field(13, "WEIGHT: rows; NORM: channels; RESIDUAL: addresses; ROTATION, PLACE: words"),
        "groups": Field(14, "WEIGHT, PARAM: groups that are loaded"),
        "mask_base": Field(15, "GATHER: first mask word"),
        "band0": Field(16, "GATHER: the load is empty unless this band is live"),
        "mask_had": Field(17, "REST: first word of the second mask"),
    },
    Op.MATMUL: {
        "src_base": Field(9, "token memory word of band 0"),
        "src_stride": Field(10, "words per band; GATHER: below 4096"),
        "k": Field(11, "scalars (multiple of 8), or segments if SPARSE"),
        "wbase": Field(12, "weight line of k = 0"),
        "groups": Field(13, "active groups"),
        "dst": Field(14, "Dst"),
        "dst_base": Field(15, "TOKEN, HIDDEN: word; KEY, VALUE: line; RESIDUAL: address offset"),
        "dst_stride": Field(
            16, "per band, in words (TOKEN, HIDDEN) or addresses (RESIDUAL); GATHER: below 4096"
        ),
        "shift": Field(17, "requantisation shift"),
        "pslot": Field(18, "parameter slot"),
        "thr": Field(19, "HIDDEN without GATED: threshold, 1 for ReLU"),
        "band0": Field(20, "first band"),
        "bands": Field(21, "at most this many bands from band0"),
        "mask_base": Field(22, "HIDDEN: mask word of group 0 in row tile 0"),
        "mask_bands": Field(23, "HIDDEN: bands per row tile, from band0 on; 0: dense values, no mask"),
        "mask_stride": Field(24, "HIDDEN: mask words per row tile"),
        "rows": Field(25, "SET_LIVE"),
        "count": Field(26, "STREAM: logits of this tile, which are a record"),
        "table": Field(
            27, "GATHER, ROPE: entry of row 0 in the selection table, or its place; a multiple of ROWS"
        ),
        "res_from": Field(28, "GATHER: like dst_base, where the residual rows are before"),
    },
    Op.ATTN: {
        "q_base": Field(9, "word of Q, group 0, band 0; group g is LANES / 8 words on"),
        "q_stride": Field(10, "words per band"),
        "head_dim": Field(11, "channels per head, a multiple of 8"),
        "groups": Field(12, "active groups: heads of this operation"),
        "kt_base": Field(13, "line of channel 0, tokens 0..LANES-1; next token tile LANES lines on"),
        "v_base": Field(14, "line of token 0"),
        "p_base": Field(15, "compressed probabilities: 2 * GROUPS * p_stride words"),
        "p_stride": Field(16, "words per group and row: token tiles * segment words"),
        "o_base": Field(17, "word of O, group 0, band 0; may be q_base"),
        "o_stride": Field(18, "words per band"),
        "s_mult": Field(19, "multiplier of the logits"),
        "s_shift": Field(20, "shift of the logits"),
        "pv_shift": Field(21, "shift of O, to which log2 of the row sum is added"),
        "table": Field(22, "SCORE: entry of token 0 in the score table"),
    },
    Op.NORM: {
        "kind": Field(9, "NormKind"),
        "dim": Field(10, "channels, a multiple of LANES"),
        "res_stride": Field(11, "residual addresses per band"),
        "dst_base": Field(12, "LAYERNORM: token memory word of band 0"),
        "dst_stride": Field(13, "LAYERNORM: words per band; TOKENS: words of the record per part"),
        "slot": Field(14, "LAYERNORM, TOKENS: norm slot"),
        "shift": Field(15, "LAYERNORM, TOKENS: output shift"),
        "res_base": Field(16, "residual address of band 0"),
    },
    Op.SELECT: {
        "keep": Field(9, "tokens to keep in addition to token 0"),
        "threshold": Field(10, "lowest score of a token that may stay, 20 fraction bits", slots=2),
        "table": Field(12, "entry of row 0 in both tables"),
        "from": Field(13, "place of row 0 before, a multiple of ROWS"),
        "to": Field(14, "place of row 0 after, likewise"),
    },
    Op.RECV: {
        "rows": Field(9, "rows including prefix rows"),
        "prefix": Field(10, "rows of zeros made on chip, not received"),
        "row_words": Field(11, "64-bit words per row"),
        "dst_base": Field(12, "token memory word of band 0"),
        "dst_stride": Field(13, "words per band"),
    },
    Op.END: {},
}


class Error(Coded):
    """Sticky error codes."""

    NONE = 0, "no error"
    BAD_OPCODE = 1, "the program holds an opcode that is not in the table"
    ADDRESS_RANGE = 2, "a load, or the program itself, reaches beyond the blob"
    BAD_HASH = 3, "the program's configuration hash or ABI is not this core's"
    AXI_READ = 4, "a read came back with SLVERR or DECERR"
    WATCHDOG = 5, "nothing moved for WATCHDOG cycles, and not for want of input or of room for output"
    STREAM_SHORT = 6, "TLAST before the last patch word"
    STREAM_LONG = 7, "no TLAST on the last patch word"


#: errors of no instruction, whose index is 0
NOWHERE = frozenset({Error.NONE, Error.AXI_READ, Error.WATCHDOG})


class Record(Coded):
    """A record begins with {payload bytes[63:32], count[31:16], tag[15:8], image[7:4], type[3:0]}."""

    LOGITS = 1, "count int16 logits, those after the image's LOGITS record before"
    KEPT = 2, "count uint16 rows that stay, by their numbers before; row 0 included"
    CHECKPOINT = 3, "count rows of int16 residuals"
    MARK = 4, "one word: {fires[63:32], cycles[31:0]} since start"
    TOKENS = 5, "count rows of int16 channels, in parts; see above"


#: AXI4-Lite registers: name -> (byte offset, access, meaning)
REGISTERS: dict[str, tuple[int, str, str]] = {
    "ID": (0x00, "ro", "0x524F5756"),
    "ABI": (0x04, "ro", "ABI version"),
    "CONFIG_HASH": (0x08, "ro", "first 32 bits of the configuration's SHA-256"),
    "CAPS": (0x0C, "ro", "rows[3:0], groups[11:4], lanes[23:12]"),
    "CONTROL": (
        0x10,
        "wo",
        "bit 0 start, ignored while the core is busy, after an error, and together with bit 1; bit 1 reset"
        " the core (clears STATUS, ERROR, IRQ_STATUS, counters)",
    ),
    "STATUS": (0x14, "ro", "bit 0 busy, 1 done (started, and all passes are), 2 error; passes done [31:16]"),
    "ERROR": (0x18, "ro", "code[7:0], instruction index [31:8], 0 for AXI_READ and WATCHDOG"),
    "IRQ_ENABLE": (0x1C, "rw", "bit 0 pass done, bit 1 error"),
    "IRQ_STATUS": (0x20, "w1c", "bit 0 pass done, bit 1 error"),
    "BASE_LO": (0x24, "rw", "byte address of the blob, multiple of 64; kept while the core is busy"),
    "BASE_HI": (0x28, "rw", "upper half; kept while the core is busy"),
    "PROGRAM": (
        0x2C,
        "rw",
        "byte offset of the program in the blob, in words of the port; kept while the core is busy",
    ),
    "LENGTH": (0x30, "rw", "bytes of the blob, beyond which no read goes; kept while the core is busy"),
    "PASSES": (0x34, "rw", "passes of the next start, below 65536; kept while the core is busy"),
    "WATCHDOG": (
        *(0x38, "rw"),
        "cycles without any progress before error 5, but for those in which the core waits for the streams;"
        " 0 switches it off; kept while the core is busy",
    ),
    "PROGRESS0": (0x40, "ro", "operations completed: EXEC[31:16], LOAD[15:0]"),
    "PROGRESS1": (0x44, "ro", "NORM[31:16], DRAIN[15:0]"),
    "PROGRESS2": (0x48, "ro", "RECV[31:16], SELECT[15:0]"),
    "LIVE": (0x4C, "ro", "live tokens of the image that they were last counted for"),
}

BUSY, DONE, ERROR = 1, 2, 4  # of the register STATUS
COUNTER_BASE = 0x80
#: 32-bit counters, cleared by start, at COUNTER_BASE + 4 * index
COUNTERS: tuple[tuple[str, str], ...] = (
    ("cycles", "cycles since start, until the last pass is done"),
    ("exec_busy", "an array operation is in progress"),
    ("exec_fire", "at least one lane group multiplied"),
    ("fires", "lane-group multiplications (each LANES MACs)"),
    ("ffn2_nonzeros", "hidden scalars multiplied, per row, summed over lane tiles"),
    ("pv_nonzeros", "probabilities multiplied, summed over heads and rows"),
    ("wait_data", "array operation in progress, no scalar ready"),
    ("wait_drain", "array held because the previous results are still draining"),
    ("wait_steal", "array row held for a weight memory write"),
    ("drain_busy", "results are draining"),
    ("load_busy", "a load is in progress"),
    ("load_wait", "a load waits for its dependencies"),
    ("axi_beats", "64-bit words read from memory, without those that a reset made useless"),
    ("w2_fetched", "W2 rows fetched by masked loads, per lane tile"),
    ("w2_rows", "W2 rows that masked loads chose from, per lane tile"),
    ("norm_busy", "LayerNorm, or a record of tokens or residuals, in progress"),
    ("softmax_busy", "softmax second pass in progress"),
    ("select_busy", "token selection in progress"),
    ("recv_words", "64-bit words received"),
    ("send_words", "64-bit words sent"),
)


#: the engine whose queue an opcode enters; EXEC operations count for DRAIN too
QUEUE: dict[Op, Engine] = {
    Op.LOAD: Engine.LOAD,
    Op.MATMUL: Engine.EXEC,
    Op.ATTN: Engine.EXEC,
    Op.NORM: Engine.NORM,
    Op.SELECT: Engine.SELECT,
    Op.RECV: Engine.RECV,
}

SLOTS = INSTRUCTION_BYTES // 2
#: slot of a queued instruction in which the dispatcher leaves the instruction's index, for error reports
INDEX = SLOTS - 1


def queue_slots(engine: Engine) -> int:
    """Slots up to the last one that instructions of an engine's queue have; the queue holds no others."""
    ops = [op for op, queue in QUEUE.items() if queue is engine]
    return max(field.slot + field.slots for op in ops for field in FIELDS[op].values())


@dataclass
class Instruction:
    """One decoded instruction; ``fields`` holds what ``FIELDS[op]`` names, absent ones are 0."""

    op: Op
    fields: dict[str, int] = field(default_factory=dict)
    flags: frozenset[Flag] = frozenset()
    tag: int = 0
    #: engine -> operations of this pass that must be complete
    deps: dict[Engine, int] = field(default_factory=dict)
    #: engines whose dependency holds per band
    chain: frozenset[Engine] = frozenset()
    image: int = 0  #: number in the pass

    def encode(self) -> NDArray[Any]:
        """As uint16 [32]; `RowvitError` if a field is unknown to the opcode, or a value exceeds its slots."""
        slots, places = [0] * SLOTS, _PLACES[self.op]
        for name, value, bits in (("image", self.image, 4), ("tag", self.tag, 8)):
            if value >> bits:  # so are negative ones
                raise self._misfit(name, value, bits)
        slots[OPCODE] = self.op | self.image << 4 | self.tag << 8
        slots[FLAGS], slots[CHAIN] = _bits(self.flags), _bits(self.chain)
        slots[DEPS:OPERANDS] = _NO_DEPS
        for engine, dep in self.deps.items():
            if not -0x8000 <= dep <= 0x7FFF:
                raise RowvitError(f"{self.op.name}: dependency {engine.name} {dep} does not fit 16 bits")
            slots[DEPS + engine] = dep & 0xFFFF
        for name, value in self.fields.items():
            if name not in places:
                raise RowvitError(f"{self.op.name} has no field '{name}'")
            low, high = places[name]
            if value >> (32 if high else 16):
                raise self._misfit(name, value, 32 if high else 16)
            slots[low] = value & 0xFFFF
            if high:
                slots[high] = value >> 16
        return np.array(slots, np.uint16)

    def _misfit(self, name: str, value: int, bits: int) -> RowvitError:
        return RowvitError(f"{self.op.name}: {name} = {value} does not fit {bits} bits")

    @classmethod
    def decode(cls, values: Sequence[int]) -> Instruction:
        """Read 32 slots; `RowvitError` if the opcode is unknown."""
        code = values[OPCODE] & 0xF
        if code not in _READ:
            raise RowvitError(f"unknown opcode {code}", "the program is damaged or for another ABI")
        op, names, first, wide = _READ[code]
        deps = zip(_ENGINES, values[DEPS:OPERANDS], strict=True)
        fields = dict(zip(names, first(values), strict=False))
        for name, high in wide:
            fields[name] |= values[high] << 16
        return cls(
            op,
            fields,
            _members(Flag, values[FLAGS]),
            values[OPCODE] >> 8,
            {engine: dep - 0x10000 * (dep >> 15) for engine, dep in deps if dep != NO_DEP & 0xFFFF},
            _members(Engine, values[CHAIN]),
            values[OPCODE] >> 4 & 0xF,
        )

    def __str__(self) -> str:
        """One line: opcode, tag, image, fields, flags, dependencies (``>=``: complete, ``~``: per band)."""
        coded: dict[tuple[Op, str], type[Coded]] = {
            (Op.LOAD, "kind"): LoadKind,
            (Op.MATMUL, "dst"): Dst,
            (Op.NORM, "kind"): NormKind,
        }
        parts = [f"{self.op.name:<7}"]
        parts += [f"{name}={value}" for name in ("tag", "image") if (value := getattr(self, name))]
        for name in FIELDS[self.op]:
            value = self.fields.get(name, 0)
            if codes := coded.get((self.op, name)):
                parts.append(f"{name}={codes(value).name}")
            elif value:
                parts.append(f"{name}={hex(value) if name in ('address', 'config_hash') else value}")
        parts += [flag.name for flag in sorted(self.flags)]
        if self.deps:
            parts.append("|")
        parts += [f"{e.name}{'~' if e in self.chain else '>='}{self.deps[e]}" for e in sorted(self.deps)]
        return " ".join(parts)


_ENGINES = tuple(Engine)
#: of every opcode: its fields with their first slot and their second one, or 0
_PLACES = {
    op: {name: (p.slot, p.slot + 1 if p.slots == 2 else 0) for name, p in places.items()}
    for op, places in FIELDS.items()
}


#: of every opcode: itself, names of fields, what gets their first slots (and two more, so that there always
#: are several), and names with second slots
_READ = {
    int(op): (
        op,
        tuple(places),
        itemgetter(*(low for low, _ in places.values()), OPCODE, OPCODE),
        [(name, high) for name, (_, high) in places.items() if high],
    )
    for op, places in _PLACES.items()
}
_NO_DEPS = [NO_DEP & 0xFFFF] * len(Engine)


@cache
def _members(kind: type[_Code], bits: int) -> frozenset[_Code]:
    """Those whose bits are set."""
    return frozenset(member for member in kind if bits >> member & 1)


@cache
def _bits(members: frozenset[Coded]) -> int:
    """The other way round."""
    return sum(1 << member for member in members)
