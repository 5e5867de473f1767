# SPDX-License-Identifier: Apache-2.0
"""Places loads between steps and gives their blocks room; then derives all dependencies.

A load comes as early in the program as its room is free in program order (its last user has been
issued), but at most ``LOOKAHEAD`` loads ahead of the step that needs them: the dispatcher issues
in order and would otherwise hold a step back behind a full load queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rowvit.compiler.lower import Lowering
from rowvit.compiler.steps import Access, Allocation, Load, OnChip, Step
from rowvit.errors import RowvitError
from rowvit.hardware.isa import (
    ABI_VERSION,
    NO_DEP,
    QUEUE,
    Engine,
    Flag,
    Instruction,
    LoadKind,
    Op,
)

LOOKAHEAD = 12
#: how many steps before a step without room get fewer loads pulled ahead
_BACK_OFF = 12
_NEVER = -(1 << 30)
#: fewest lines of a load that is split, and what they are a multiple of
_LEAST = 64


#: memories in which the lowering decides where something is
_WITHOUT_BLOCK = {
    LoadKind.RESIDUAL: OnChip.RESIDUAL,
    LoadKind.ROTATION: OnChip.ROTATION,
    LoadKind.PLACE: OnChip.PLACE,
}


class _Used(NamedTuple):
    """Addresses with a user between two steps."""

    base: int
    end: int
    first: int  #: step
    last: int  #: step

    @classmethod
    def by(cls, block: Allocation) -> _Used:
        return cls(block.base, block.end, block.first, block.last)


class _Room:
    """First fit over one memory; among the free places the one that was left longest ago."""

    def __init__(self, size: int, reserved: list[Allocation], past: list[_Used]) -> None:
        self.size, self.reserved = size, [_Used.by(block) for block in reserved]
        self.past = list(past)  # taken until its last step has been issued; newest last
        #: for these blocks there is no room before a step has been issued
        self.full: dict[Allocation, int] = {}
        self._now: int | None = None  #: the step before which these were in use, of ``past`` and ``reserved``
        self._busy: list[_Used] = []
        self._booked: list[_Used] = []

    def place(self, block: Allocation, now: int) -> bool:
        """Choose a base for ``block`` before step ``now`` is issued; False if there is no room yet."""
        if now <= self.full.get(block, -1):
            return False
        size, best = block.size, None
        taken = self._taken(block, now)
        for base in self._edges(block, taken):
            end = base + size
            if base < 0 or end > self.size:
                continue
            for used in taken:
                if base < used[1] and used[0] < end:
                    break
            else:
                left = _NEVER  # the last step that used the place
                for start, stop, _, last in self.past:
                    if last > left and base < stop and start < end:
                        left = last
                if best is None or (left, base) < best:
                    best = left, base
        if best is None:
            self.full[block] = min((used.last for used in taken), default=-1)
            return False
        block.base = best[1]
        self._take(block, now)
        return True

    def place_early(self, block: Allocation, now: int, needed: int) -> tuple[int, int]:
        """Choose a base of which a part is free now, and the rest when step ``needed`` is issued.

        Returns the part, beginning or end of the block, as its first line and its size; (0, 0): there is
        none.
        """
        size, best, found = block.size, _LEAST - 1, (0, 0)
        taken = self._taken(block, now)
        late = [used for used in taken if used.last >= needed]
        for base in sorted(self._edges(block, taken)):
            if not 0 <= base <= self.size - size or any(base < t.end and t.base < base + size for t in late):
                continue
            inside = [used for used in taken if base < used.end and used.base < base + size]
            begin = min(used.base for used in inside) - base
            end = base + size - max(used.end for used in inside)
            free = max(begin, end) // _LEAST * _LEAST
            if free > best:
                block.base, best = base, free
                found = (0, free) if begin >= end else (size - free, free)
        if best >= _LEAST:
            self._take(block, now)
        return found

    def free(self, block: Allocation, first: int, size: int, now: int) -> bool:
        """Whether these lines of a placed block have no other user any more."""
        begin = block.base + first
        own = (block.base, block.first)
        others = [used for used in self._taken(block, now) if (used.base, used.first) != own]
        return all(begin >= t.end or t.base >= begin + size for t in others)

    def _taken(self, block: Allocation, now: int) -> list[_Used]:
        if now != self._now:
            self._now = now
            self._busy = [used for used in self.past if used[3] >= now]
            self._booked = [room for room in self.reserved if room[3] >= now]
        return self._busy + [room for room in self._booked if room[2] <= block.last]

    def _take(self, block: Allocation, now: int) -> None:
        # whatever lies within the new block, and has no use, is no longer of interest
        base, end = block.base, block.end
        self.past = [u for u in self.past if u[3] >= now or not (base <= u[0] and u[1] <= end)]
        used = _Used.by(block)
        self.past.append(used)
        self._busy.append(used)  # the block's steps are still to come

    def _edges(self, block: Allocation, taken: list[_Used]) -> set[int]:
        """Bases that are worth a look: next to something, or where something was."""
        if block.only >= 0:
            return {block.only}
        edges, size = {0, self.size - block.size}, block.size
        for base, end, _, _ in self.past:
            edges.update((base, end, base - size))
        for base, end, _, _ in taken[len(self._busy) :]:  # those before are of the past, too
            edges.update((end, base - size))
        return edges


#: by engine, the older ones whose order with it needs a dependency: each keeps its own, the drain the array's
_OLDER = {
    new: {old for old in Engine if old is not new and (old, new) != (Engine.EXEC, Engine.DRAIN)}
    for new in Engine
}


def _follows(new: Access, old: Access) -> bool | None:
    """None: no conflict; True: band p of ``new`` conflicts with bands up to p of ``old`` only.

    Their addresses, from the first one to the last, have some in common.
    """
    banded = new.banded and old.banded
    if not banded and new.dense and old.dense:
        return False
    return _overlap(
        *(new.base - old.base, new.first - old.first, banded),
        *(new.width, new.stride, new.bands, old.width, old.stride, old.bands),
    )


@lru_cache(maxsize=4096)
def _overlap(
    ahead: int,
    later: int,
    banded: bool,
    width: int,
    stride: int,
    bands: int,
    old_width: int,
    old_stride: int,
    old_bands: int,
) -> bool | None:
    """`_follows` of an access that begins ``ahead`` addresses and ``later`` bands behind the old one's base
    and first band: layers that are alike, and images, have such pairs in common.
    """
    found = None
    for band in range(bands):
        start = ahead + band * stride
        # the old one's bands that end behind the start, and begin before the end
        if old_bands > 1 and old_stride:
            least = max(0, (start - old_width) // old_stride + 1)
            most = min(old_bands - 1, (start + width - 1) // old_stride)
        else:
            least, most = 0, old_bands - 1 if -width < start < old_width else -1
        if least <= most:
            if not banded or most > band + later:
                return False
            found = True
    return found


_LIVE = OnChip.LIVE  # of an Enum, names are looked up in Python


class Tracker:
    """Derives dependencies from what each instruction reads and writes, band by band.

    It finds, for a new instruction and every engine, the last operation that it must wait for, and whether
    waiting band by band (``chain``) is enough. Orders that the hardware guarantees need no dependency:
    operations of one engine, and results of an array operation against everything that older array operations
    read or wrote. Operation numbers continue from image to image.
    """

    def __init__(self) -> None:
        self.done = dict.fromkeys(Engine, 0)
        #: by memory, and by engine and whether it wrote: operation, first address, the one behind, access
        self._history: dict[OnChip, dict[tuple[Engine, bool], list[tuple[int, int, int, Access]]]] = {
            memory: {} for memory in OnChip
        }

    def depend(self, accesses: list[Access]) -> tuple[dict[Engine, int], set[Engine]]:
        """Operations (absolute numbers) that must be complete, and the engines to follow by band."""
        last: dict[Engine, tuple[int, bool]] = {}
        for new in accesses:
            base, end, older = new.base, new.end, _OLDER[new.engine]
            for (engine, write), entries in self._history[new.memory].items():
                if not (write or new.write) or engine not in older:
                    continue
                found, chain = last.get(engine, (0, True))
                for op, first, stop, old in reversed(entries):
                    if op < found:
                        break
                    if base < stop and first < end and (follows := _follows(new, old)) is not None:
                        last[engine] = found, chain = op, follows and (chain or op > found)
        return {e: op for e, (op, _) in last.items()}, {e for e, (_, chain) in last.items() if chain}

    def commit(self, accesses: list[Access], engines: set[Engine]) -> None:
        """Append one instruction that enters ``engines``."""
        for engine in engines:
            self.done[engine] += 1
        for new in accesses:
            if new.memory is _LIVE and not new.write:
                # engines sample the count when an operation starts, and a selection waits for the
                # first band of the last attention: whatever is older has started
                continue
            base, end, here = new.base, new.end, self._history[new.memory]
            if new.write and new.dense:
                # what conflicts with what is covered conflicts with this, too, which is later
                for entries in here.values():
                    entries[:] = [entry for entry in entries if entry[1] < base or end < entry[2]]
            here.setdefault((new.engine, new.write), []).append((self.done[new.engine], base, end, new))


class _NoRoom(Exception):
    """The step, by its number, for whose loads there is none."""


class Scheduler:
    """Order of loads and steps for one pass, and the instructions of that order."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering, self.config = lowering, lowering.config
        self.steps = lowering.steps

    def run(self) -> list[Load | Step]:
        """The order of all loads and steps. No room for a block of weights is a `RowvitError`."""
        for step in self.steps:
            for load in step.loads:
                load.operation = load.operation or step.operation
        self._order_with_back_off({memory: [] for memory in (OnChip.WEIGHT, OnChip.PARAM, OnChip.NORM)})
        # again, with what the end of the previous image leaves behind
        past = {
            memory: [used._replace(last=used.last - len(self.steps)) for used in room.past]
            for memory, room in self.rooms.items()
        }
        return self._order_with_back_off(past)

    def _order_with_back_off(self, past: dict[OnChip, list[_Used]]) -> list[Load | Step]:
        ahead = [LOOKAHEAD] * len(self.steps)
        while True:
            try:
                return self._order(ahead, past)
            except _NoRoom as error:
                (stuck,) = error.args
            window = range(max(0, stuck - _BACK_OFF), stuck + 1)
            if not any(ahead[i] for i in window):
                step, config, name = self.steps[stuck], self.config, self.lowering.meta["name"]
                operation = step.operation
                lines = step.weights.size if step.weights else 0
                raise RowvitError(
                    f"'{name}' on '{config.name}': {operation.label} of layer {operation.layer} finds no room"
                    f" for {lines} contiguous weight lines and a parameter slot; {config.weight_depth} lines"
                    f" and {config.param_slots} slots are too few"
                )
            for i in window:
                ahead[i] = max(0, ahead[i] - 1)

    def _order(self, ahead: list[int], past: dict[OnChip, list[_Used]]) -> list[Load | Step]:
        """One attempt; `_NoRoom` if it fails."""
        self.rooms = {
            OnChip.WEIGHT: _Room(self.config.weight_depth, self.lowering.reserved, past[OnChip.WEIGHT]),
            OnChip.PARAM: _Room(self.config.param_slots, [], past[OnChip.PARAM]),
            OnChip.NORM: _Room(self.config.norm_slots, [], past[OnChip.NORM]),
        }
        queue: list[tuple[int, Load]] = []
        for i, step in enumerate(self.steps):
            for load in step.loads:
                queue.append((i, load))
                if load.block:
                    load.block.base = -1
        order: list[Load | Step] = []
        early: list[int] = []  # steps that the loads placed so far wait for
        for now, step in enumerate(self.steps):
            window = 0
            early = [index for index in early if index > now]
            while window < len(queue):
                index, load = queue[window]
                if index > now and len(early) >= ahead[now]:
                    break
                parts = self._with_room(load, index, now)
                if not parts:
                    break
                queue[window : window + 1] = [(index, part) for part in parts]
                load = parts[0]
                if load.after < now:
                    order.append(queue.pop(window)[1])
                    if index > now:
                        early.append(index)
                elif load.mask is None:
                    break
                else:
                    window += 1  # others may pass while its mask is being made
            order.append(step)
        return order

    def _with_room(self, load: Load, index: int, now: int) -> Sequence[Load]:
        """The load of a step, once there is room for it, or its parts, where there is some for the first of
        them; none of them if it waits. `_NoRoom` if it is one of the step ``now``, which cannot.
        """
        block = load.block
        if block is None:
            return [load]
        room = self.rooms[block.memory]
        if block.base < 0 and not room.place(block, now):
            if index <= now:
                raise _NoRoom(now)
            # two such blocks have no room: the next one begins where the last ends
            if 2 * load.rows <= room.size or load.mask:
                return []
            first, size = room.place_early(block, now, index)
            return load.split(first, size, load.groups * self.config.lanes) if size else []
        # what is needed has become free
        waits = load.late and index > now and not room.free(block, load.offset, load.rows, now)
        return [] if waits else [load]

    def instructions(self, order: list[Load | Step], code_bytes: int) -> list[Instruction]:
        """All instructions, HEADER to END; the weights follow ``code_bytes`` of code.

        Dependencies are those of the second of two passes in a row, relative to its own start.
        """
        parts: list[tuple[Instruction, list[Access], set[Engine]]] = []
        for item in order:
            if isinstance(item, Load):
                instruction, accesses = self._load_instruction(item, code_bytes)
            else:
                instruction, accesses = self._step(item)
            queue = QUEUE[instruction.op]
            parts.append((instruction, accesses, {queue, Engine.DRAIN} if queue is Engine.EXEC else {queue}))
        tracker = Tracker()
        for _, accesses, engines in parts:
            tracker.commit(accesses, engines)
        start = dict(tracker.done)
        for instruction, accesses, engines in parts:
            deps, chain = tracker.depend(accesses)
            # what is further back than 16 bits can say has long been complete
            deps = {e: op - start[e] for e, op in deps.items() if op - start[e] > NO_DEP // 2}
            instruction.deps, instruction.chain = deps, frozenset(chain & deps.keys())
            tracker.commit(accesses, engines)
        body = [instruction for instruction, _, _ in parts]
        previous = (n for n, instruction in enumerate(body, 1) if Flag.PREVIOUS in instruction.flags)
        finish = max(previous, default=0)
        fields = {"config_hash": self.config.hash, "abi": ABI_VERSION, "finish": finish}
        header = Instruction(Op.HEADER, fields)
        return [header, *body, Instruction(Op.END)]

    def _load_instruction(self, load: Load, code_bytes: int) -> tuple[Instruction, list[Access]]:
        base = load.offset + (load.block.base if load.block else 0)
        fields = dict(
            kind=load.kind, address=code_bytes + load.address, dst=base, rows=load.rows, groups=load.groups
        )
        memory = load.block.memory if load.block else _WITHOUT_BLOCK[load.kind]
        width = load.rows if load.kind is LoadKind.WEIGHT or not load.block else 1
        accesses = [Access(Engine.LOAD, True, memory, base, width, banded=False)]
        if load.kind is LoadKind.PLACE:
            accesses.append(Access(Engine.LOAD, True, memory, self.config.rotary_tokens, 1, banded=False))
        accesses += [load.behind] if load.behind else []
        flags = frozenset({Flag.PREVIOUS}) if load.previous else frozenset()
        if load.mask:
            flags |= {Flag.GATHER}
            fields |= dict(mask_base=load.mask.words.base, band0=load.mask.band0)
            live = Access(Engine.LOAD, False, OnChip.LIVE, load.image, 1, banded=False)
            accesses += [load.mask.words, live]
            if load.mask.had:
                flags |= {Flag.REST}
                fields |= dict(mask_had=load.mask.had.base)
                accesses.append(load.mask.had)
        return Instruction(Op.LOAD, fields, flags, image=load.image), accesses

    def _step(self, step: Step) -> tuple[Instruction, list[Access]]:
        instruction, accesses = step.instruction, list(step.accesses)
        bands = max(access.bands for access in accesses)
        if step.weights:
            block, engine = step.weights, QUEUE[instruction.op]
            if engine is Engine.EXEC:
                instruction.fields["wbase"] = block.base
            accesses.append(Access(engine, False, OnChip.WEIGHT, block.base, block.size, 0, bands))
        if step.params:
            norm = step.params.memory is OnChip.NORM
            instruction.fields["slot" if norm else "pslot"] = step.params.base
            engine = Engine.NORM if norm else Engine.DRAIN
            accesses.append(Access(engine, False, step.params.memory, step.params.base, 1, 0, bands))
        return instruction, accesses
