# SPDX-License-Identifier: Apache-2.0
"""What the tests of the vector units share: instructions, write ports with a bank per row, reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from cocotb.triggers import FallingEdge, ReadOnly

from harness import uint
from rowvit.hardware.isa import Engine, Flag, Instruction, Op


def instruction(
    op: Op,
    flags: tuple[Flag, ...] = (),
    tag: int = 0,
    deps: dict[Engine, int] | None = None,
    chain: tuple[Engine, ...] = (),
    image: int = 0,
    **fields: int,
) -> int:
    """An instruction as the dispatcher hands it over: dependencies counted from start."""
    absolute = {engine: -0x4000 for engine in Engine} | (deps or {})
    encoded = Instruction(op, fields, frozenset(flags), tag, absolute, frozenset(chain), image).encode()
    return int.from_bytes(encoded.tobytes(), "little")


def defined(handle: Any) -> int:
    """Value of a signal as an unsigned number, undefined bits as 0."""
    return int("".join(bit if bit in "01" else "0" for bit in str(handle.value)), 2)


async def banks(dut: Any, prefix: str, rows: int, written: list[dict[int, int]], stall: float) -> None:
    """Take the words of a write port with a bank per row into ``written[bank][address]``.

    Also checks that a waiting word stays, and that no word is written twice.
    """
    valid_h, ready_h = getattr(dut, f"{prefix}_valid_o"), getattr(dut, f"{prefix}_ready_i")
    addr_h, data_h = getattr(dut, f"{prefix}_addr_o"), getattr(dut, f"{prefix}_data_o")
    waiting: list[tuple[int, int] | None] = [None] * rows
    while True:
        ready = sum((random.random() >= stall) << bank for bank in range(rows))
        ready_h.value = ready
        await ReadOnly()
        valid = uint(valid_h)
        if valid:
            addr, data = defined(addr_h), defined(data_h)
            for bank in range(rows):
                item = (addr >> 16 * bank & 0xFFFF, data >> 64 * bank & (1 << 64) - 1)
                if not valid >> bank & 1:
                    item = None
                assert waiting[bank] in (None, item), f"bank {bank}: {waiting[bank]} became {item}"
                waiting[bank] = None
                if item and ready >> bank & 1:
                    assert item[0] not in written[bank], f"bank {bank}: word {item[0]} written twice"
                    written[bank][item[0]] = item[1]
                elif item:
                    waiting[bank] = item
        await FallingEdge(dut.clk_i)


async def answer(
    dut: Any,
    read: Callable[[int], int],
    addr: str,
    data: str,
    stall: float = 0.0,
    valid: str | None = None,
    ready: str | None = None,
    latency: int = 1,
) -> None:
    """Memory behind a read port: ``read(address)`` appears ``latency`` cycles after an accepted read.

    In other cycles the data is noise. Without ``valid`` and ``ready`` every cycle reads.
    """
    addr_h, data_h = getattr(dut, addr), getattr(dut, data)
    width = len(data_h)
    values = [0] * (latency - 1)
    while True:
        go = random.random() >= stall
        if ready:
            getattr(dut, ready).value = int(go)
        await ReadOnly()
        taken = (go and bool(getattr(dut, valid).value)) if valid else True
        values.append(read(defined(addr_h)) if taken else random.getrandbits(width))
        await FallingEdge(dut.clk_i)
        data_h.value = values.pop(0)
