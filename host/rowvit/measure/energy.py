# SPDX-License-Identifier: Apache-2.0
"""Energy of an image, estimated by activity: counts of what the core does, times published energies.

Nothing is measured. The counts are exact (`rowvit.hardware.activity`), the energies are of other circuits, in
``hardware/energies.toml`` with their sources. Leakage, clock tree, wires between units, control, queues and
registers other than accumulators are in none of them: a chip of this design takes more, as far as the
energies are right for it. Ratios between two networks depend less on that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rowvit.compiler import compile
from rowvit.cycles import LayerStatistics, activity, measured
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.work import count_work
from rowvit.hardware.activity import memories, operations
from rowvit.hardware.config import HardwareConfig, tomllib
from rowvit.reference import patchify, run

LABEL = "estimate by activity"
TABLE = Path(__file__).parents[1] / "hardware" / "energies.toml"
#: what the energy is spent in
PARTS = ("DDR", "SRAM", "arithmetic")
#: of the paper (arXiv 2510.14393), 28 nm
PAPER_TOPS_PER_WATT = 2.31


@dataclass(frozen=True)
class Energies:
    """Energies in pJ, scaled to one process; see ``hardware/energies.toml``."""

    process: str  #: in words
    multiply: float  #: of a product of two bits
    add: float  #: of a bit of a sum
    register: float  #: of a bit that takes a value
    ddr: float  #: of a bit read or written
    sram_bits: int  #: of an access
    sram: tuple[tuple[float, float], ...]  #: bytes of a memory, and energy of an access; ascending

    def access(self, bits: int, words: int) -> float:
        """Energy in pJ of a read or write of ``bits`` in a memory of ``words`` such words."""
        size = words * min(bits, self.sram_bits) / 8
        pairs = list(zip(self.sram, self.sram[1:], strict=False))
        (low, below), (high, above) = next(
            (pair for pair in pairs if size <= pair[1][0]), pairs[-1] if pairs else (self.sram[0],) * 2
        )
        slope = math.log(above / below) / math.log(high / low) if high > low else 0.0
        return below * (size / low) ** slope * bits / self.sram_bits


_KEYS = {"pj", "bits", "source"}
_TABLES: dict[str, set[str]] = {
    "process": {"node_nm", "volts", "source"},
    "multiply": _KEYS,
    "add": _KEYS,
    "register": _KEYS,
    "sram": _KEYS | {"bytes"},
    "ddr": _KEYS,
}


def load(path: Path | None = None) -> Energies:
    """The energies of ``hardware/energies.toml``, with tables of a file of the user's own in their places.

    Raises
    ------
    RowvitError
        The file cannot be read, is not TOML, or has a table or value that is not understood.
    """
    found = _read(TABLE)
    if path is not None:
        own = _read(path)
        if unknown := own.keys() - _TABLES.keys():
            raise RowvitError(
                f"{path} has a table {sorted(unknown)[0]}", f"its tables are {', '.join(_TABLES)}"
            )
        found |= own
    for name, table in found.items():
        _check(path or TABLE, name, table)
    process = found["process"]

    def scaled(name: str) -> list[float]:
        table = found[name]
        scale = 1.0
        if "node_nm" in table:
            scale = process["node_nm"] / table["node_nm"] * (process["volts"] / table["volts"]) ** 2
        values = table["pj"] if isinstance(table["pj"], list) else [table["pj"]]
        return [scale * value for value in values]

    sram = sorted(zip(map(float, found["sram"]["bytes"]), scaled("sram"), strict=True))
    return Energies(
        f"{process['node_nm']:g} nm, {process['volts']:g} V",
        scaled("multiply")[0] / found["multiply"]["bits"] ** 2,
        scaled("add")[0] / found["add"]["bits"],
        scaled("register")[0] / found["register"]["bits"],
        scaled("ddr")[0] / found["ddr"]["bits"],
        found["sram"]["bits"],
        tuple(sram),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RowvitError(f"{path} cannot be read ({error.strerror})", "name a .toml file") from error
    except ValueError as error:
        raise RowvitError(f"{path} is not TOML: {error}") from error


def _check(path: Path, name: str, table: Any) -> None:
    """`RowvitError` unless the table has its keys, with positive numbers and a source in words."""
    process = {"node_nm", "volts"}
    known = _TABLES[name]
    if not isinstance(table, dict):
        raise RowvitError(f"{path}: {name} is {table!r}, and no table", f"write [{name}] and its keys below")
    keys = table.keys() - (process if process.isdisjoint(known) and process <= table.keys() else set())
    if keys != known:
        raise RowvitError(
            f"{path}: the table {name} has other keys than {', '.join(sorted(known))}",
            "give all of them; node_nm and volts, both or none, scale it",
        )
    several = {"pj", "bytes"} if name == "sram" else set()
    for key, value in table.items():
        if key == "source":
            good = isinstance(value, str) and bool(value.strip())
        elif key in several:
            sizes = table["bytes"]
            good = isinstance(value, list) and isinstance(sizes, list) and len(value) == len(sizes) > 0
            good = good and all(map(_positive, value)) and (key == "pj" or len({*value}) == len(value))
        else:
            good = _positive(value)
        if not good:
            raise RowvitError(
                f"{path}: {name}.{key} = {value!r} is not understood",
                "use positive numbers (lists of one length in sram), and say where they come from",
            )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True)
class Item:
    """What some energy is spent in."""

    part: str  #: of `PARTS`
    name: str
    bits: str  #: of a word, or of the factors of each product
    count: float  #: reads, or operations
    writes: float | None  #: of a memory
    picojoules: float


def ddr_words(counts: Mapping[str, float]) -> float:
    """Words of 64 bits that go to or come from the DDR, by core and DMA."""
    return counts["axi_beats"] + counts["recv_words"] + counts["send_words"]


def items(config: HardwareConfig, counts: Mapping[str, float], energies: Energies) -> list[Item]:
    """The energy of some counts of `hardware.activity`, by memory and kind of arithmetic."""
    written, words = counts["send_words"], ddr_words(counts)
    found = [Item("DDR", "words", "64", words - written, written, 64 * words * energies.ddr)]
    for memory in memories(config, counts):
        energy = (memory.reads + memory.writes) * energies.access(memory.bits, memory.words)
        found.append(Item("SRAM", memory.name, str(memory.bits), memory.reads, memory.writes, energy))
    for one in operations(config, counts):
        products = energies.multiply * sum(a * b for a, b in one.products)
        each = products + energies.add * sum(one.sums) + energies.register * one.registers
        widths = ", ".join(f"{a} x {b}" for a, b in one.products)
        found.append(Item("arithmetic", one.name, widths, one.number, None, one.number * each))
    return found


@dataclass(frozen=True)
class Estimate:
    """Energy of one image, in pJ, and the multiplications it was for."""

    ddr: float
    sram: float
    arithmetic: float
    macs: float  #: multiplications, without those by zero that were skipped, and without padding
    macs_dense: float  #: of the network without any pruning or skipping

    @property
    def chip(self) -> float:
        """Without DDR."""
        return self.sram + self.arithmetic

    @property
    def total(self) -> float:
        return self.ddr + self.chip

    @property
    def tops_per_watt(self) -> float:
        """Of the chip; a multiply-accumulate is two operations."""
        return 2 * self.macs / self.chip

    @property
    def tops_per_watt_dense(self) -> float:
        """Of the chip, where operations that were saved count as done."""
        return 2 * self.macs_dense / self.chip


def estimate(
    config: HardwareConfig, counts: Mapping[str, float], energies: Energies, macs: float, macs_dense: float
) -> Estimate:
    """The `Estimate` for some counts of `hardware.activity`."""
    found = items(config, counts, energies)
    ddr, sram, arithmetic = (sum(i.picojoules for i in found if i.part == part) for part in PARTS)
    return Estimate(ddr, sram, arithmetic, macs, macs_dense)


def added(layers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Counts of all layers together."""
    return {name: sum(layer[name] for layer in layers) for name in layers[0]}


#: which of the network's savings are made: tokens, rows of W2, zeros in rows that are multiplied
SAVINGS = {
    "dense": (False, False, False),
    "tokens": (True, False, False),
    "W2 rows": (False, True, False),
    "zeros": (False, False, True),
    "rows, zeros": (False, True, True),
    "all": (True, True, True),
}


def savings(
    package: ModelPackage, image: np.ndarray, config: HardwareConfig, energies: Energies
) -> dict[str, Estimate]:
    """What each of the network's savings does to an image's energy, alone and together, by the model.

    Rows of W2 and zeros take a program that skips both. Of one alone, the image's data are replaced: zeros in
    rows that are used are multiplied, or rows that no token uses are fetched. Zeros among the probabilities
    are skipped by the circuit, always.

    Parameters
    ----------
    package : ModelPackage
    image : uint8 array [H, W, 3]
    config : HardwareConfig
    energies : Energies

    Returns
    -------
    dict of Estimate
        By the names in `SAVINGS`.

    Raises
    ------
    RowvitError
        The network, or what it is without its savings, does not fit.
    """
    patches, found = patchify(image[None], package.arch["patch_size"]), {}
    rule = package.meta["ffn2_rule"]
    nothing = rule == "none" and not package.meta["pruning"]  # a dense network's: no variant of it skips
    for name, (tokens, rows, zeros) in SAVINGS.items():
        own = {
            "pruning": package.meta["pruning"] if tokens else [],
            "ffn2_rule": ("image" if rule == "none" else rule) if (rows or zeros) and not nothing else "none",
        }
        meta = {key: value for key, value in (package.meta | own).items() if key != "hash"}
        variant = ModelPackage(meta, package.tensors)
        (result,) = run(variant, patches)
        tile_rows = variant.meta["tile_rows"] if variant.meta["ffn2_rule"] == "tile" else None
        statistics = [_with(layer, rows, zeros, tile_rows) for layer in measured(result.counts)]
        counts = added(activity(compile(variant, config, batch=1), config, statistics))
        nonzeros = sum(int(layer.hidden.sum()) for layer in statistics)
        fetched = sum(int((layer.first < layer.after).sum()) for layer in statistics)
        known = result.counts
        work = count_work(variant.meta, known.live, sum(known.pv_nonzeros), nonzeros, fetched)
        found[name] = estimate(config, counts, energies, work.macs_executed, work.macs_dense)
    return found


def prediction(found: Mapping[str, Estimate]) -> str:
    """What a measurement on a board can show of `savings`, in a sentence."""
    dense, pruned = found["dense"], found["all"]
    if dense.total == pruned.total:
        return "The network drops and skips nothing, so there is nothing to predict"
    return (
        "Prediction, which rowvit power on a board can test: an image of the dense network takes"
        f" {dense.total / pruned.total:.2f} times the dynamic energy of the pruned one where the rail feeds"
        f" the DDR, too, and {dense.chip / pruned.chip:.2f} times where it does not"
    )


def _with(layer: LayerStatistics, rows: bool, zeros: bool, tile_rows: int | None) -> LayerStatistics:
    """A layer whose rows of W2, or whose zeros, are not skipped where the other is."""
    if rows and not zeros:
        used = layer.first < layer.after
        return replace(layer, hidden=used[np.arange(layer.after) // (tile_rows or layer.after)])
    if zeros and not rows:
        return replace(layer, first=np.zeros_like(layer.first))
    return layer
