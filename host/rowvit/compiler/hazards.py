# SPDX-License-Identifier: Apache-2.0
"""Dependencies between instructions, derived from what each reads and writes.

Every instruction states its accesses band by band. The tracker finds, for a new instruction and
every engine, the last operation that it must wait for, and whether waiting band by band (``chain``)
is enough. Orders that the hardware guarantees need no dependency: operations of one engine,
and results of an array operation against everything that older array operations read or wrote.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from rowvit.hardware.isa import Engine


class Memory(Enum):
    TOKEN = auto()  #: words of a row bank
    WEIGHT = auto()  #: lines of a group
    RESIDUAL = auto()  #: addresses of a bank
    PARAM = auto()  #: slots
    NORM = auto()  #: slots
    MASK = auto()  #: words
    SCORE = auto()  #: the one table of token scores
    LIVE = auto()  #: live count and selection table


@dataclass(frozen=True)
class Access:
    """Band ``first`` + p touches ``[base + p * stride, + width)`` of ``memory``, for p < bands."""

    engine: Engine
    write: bool
    memory: Memory
    base: int
    width: int
    stride: int = 0
    bands: int = 1
    first: int = 0
    #: False: not in band order, so that nobody can follow band by band
    banded: bool = True

    @property
    def end(self) -> int:
        return self.base + (self.bands - 1) * self.stride + self.width

    @property
    def dense(self) -> bool:
        return self.bands == 1 or self.stride <= self.width


#: (older, newer) pairs of engines that keep their order without a dependency
_FREE = {(engine, engine) for engine in Engine} | {(Engine.EXEC, Engine.DRAIN)}


def _follows(new: Access, old: Access) -> bool | None:
    """None: no conflict; True: band p of ``new`` conflicts with bands up to p of ``old`` only."""
    if new.base >= old.end or old.base >= new.end:
        return None
    start_new = new.base + new.stride * np.arange(new.bands)[:, None]
    start_old = old.base + old.stride * np.arange(old.bands)[None, :]
    conflict = (start_new < start_old + old.width) & (start_old < start_new + new.width)
    if not conflict.any():
        return None
    return new.banded and old.banded and not np.triu(conflict, 1 + new.first - old.first).any()


class Tracker:
    """Remembers the accesses of a program in order; operation numbers continue from image to image."""

    def __init__(self) -> None:
        self.done = dict.fromkeys(Engine, 0)
        self._history: dict[tuple[Memory, bool, Engine], list[tuple[int, Access]]] = defaultdict(list)

    def depend(self, accesses: list[Access]) -> tuple[dict[Engine, int], set[Engine]]:
        """Operations (absolute numbers) that must be complete, and the engines to follow by band."""
        last: dict[Engine, tuple[int, bool]] = {}
        for new in accesses:
            for engine in Engine:
                if (engine, new.engine) in _FREE:
                    continue
                for write in (True, False) if new.write else (True,):
                    self._scan(new, engine, write, last)
        return {e: op for e, (op, _) in last.items()}, {e for e, (_, chain) in last.items() if chain}

    def _scan(self, new: Access, engine: Engine, write: bool, last: dict[Engine, tuple[int, bool]]) -> None:
        for op, old in reversed(self._history[new.memory, write, engine]):
            found, chain = last.get(engine, (op, True))
            if op < found:
                return
            if (follows := _follows(new, old)) is not None:
                last[engine] = (op, follows and (chain or op > found))

    def commit(self, accesses: list[Access], engines: set[Engine]) -> None:
        """Append one instruction that enters ``engines``."""
        for engine in engines:
            self.done[engine] += 1
        for new in accesses:
            if new.memory is Memory.LIVE and not new.write:
                # engines sample the count when an operation starts, and a selection waits for the
                # first band of the last attention: whatever is older has started
                continue
            if new.write and new.dense:
                self._forget(new)
            self._history[new.memory, new.write, new.engine].append((self.done[new.engine], new))

    def _forget(self, new: Access) -> None:
        """Drop what ``new`` covers: what conflicts with that conflicts with ``new`` too, which is later."""
        for (memory, _, _), entries in self._history.items():
            if memory is new.memory:
                entries[:] = [(k, a) for k, a in entries if not (new.base <= a.base and a.end <= new.end)]
