# SPDX-License-Identifier: Apache-2.0
"""The schedule for a budget: in which blocks how many tokens go, and in which layers which activations.

What a schedule costs in accuracy is taken from the divergence of its logits from the unpruned network's, on
photos without labels; what it saves, from tables between schedules that the cycle model knows. `Search.best`
first tries every regular schedule (a share of the tokens after every first, second, ... block from one on,
three of them or all, alone and with thresholds), and then lets single blocks and layers trade tokens and
thresholds. DiffRate (arXiv 2305.17997) finds schedules by gradients instead, on a training set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rowvit.compiler import compile as lower
from rowvit.cycles import measured, predict
from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage
from rowvit.formats.work import count_work
from rowvit.hardware.config import HardwareConfig
from rowvit.measure.accuracy.schedules import (
    CYCLE_PHOTOS,
    ENERGIES,
    Point,
    below,
    cycles_of,
    hidden_samples,
    pruned,
    schedule_of,
    shares_of,
    thresholded,
)
from rowvit.model.prune import set_ffn2, set_pruning
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, normalise
from rowvit.photos import spread
from rowvit.reference import patchify, run

PHOTOS = 100  #: that go through the network for every schedule that is tried, at least
#: multiplications for each such schedule: of small networks it sees more photos, as few lead it astray
WORK = 2.5e10
ROUNDS = 4  #: trades between blocks and layers, at most
PAIRS = 6  #: that are tried of each
_GRID = (1.0, 0.75, 0.5, 0.25, 0.1)  # shares of the patches whose costs are known
_LEVELS = (2, 4, 6)  # of all layers' thresholds, in regular schedules
_FEWEST = 0.02  # share that a block keeps
_AIMS = 12  # of a search within a budget, each a little below the one before

#: gets the number of schedules that were tried
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Schedule:
    """Tokens and thresholds."""

    keep: tuple[int, ...]  #: patches left behind every block
    levels: tuple[int, ...]  #: of every layer's threshold: 0 is none, then those of `ENERGIES`

    def with_tokens(self, block: int, more: int, patches: int) -> Schedule | None:
        """So many more tokens, of all ``patches``, left behind one block; None if that cannot be."""
        left = self.keep[block] + more
        before = self.keep[block - 1] if block else patches
        after = self.keep[block + 1] if block + 1 < len(self.keep) else 1
        if not after <= left <= before:
            return None
        return replace(self, keep=(*self.keep[:block], left, *self.keep[block + 1 :]))

    def with_level(self, layer: int, more: int) -> Schedule | None:
        """A layer's threshold some levels higher; None if there is none."""
        level = self.levels[layer] + more
        if not 0 <= level <= len(ENERGIES):
            return None
        return replace(self, levels=(*self.levels[:layer], level, *self.levels[layer + 1 :]))


class Costs:
    """Cycles and multiplications of an image, by tables over the tokens that are left.

    Parameters
    ----------
    package : ModelPackage
        Unpruned.
    photos : uint8 array [B, S, S, 3]
    config : HardwareConfig
    thresholds : sequence of sequences of float
        Of every level but 0, one for each layer.
    """

    def __init__(
        self,
        package: ModelPackage,
        photos: np.ndarray,
        config: HardwareConfig,
        thresholds: Sequence[Sequence[float]],
    ) -> None:
        self.meta = package.meta
        arch = package.arch
        self.patches = arch["tokens"] - arch["prefix"]
        self.tokens = sorted({max(1, round(self.patches * share)) for share in _GRID})

        def at(keep: int) -> np.ndarray:
            step = [{"layer": 0, "keep": keep, "threshold": 0}] if keep < self.patches else []
            found = _layers(pruned(package, step), photos, config)
            if step and arch["depth"] > 1:
                # block 0 sees all tokens whatever it keeps: its neighbour stands for it
                found[:2, 0] = found[:2, 1]
            return found

        self.known = np.array([at(keep) for keep in self.tokens])
        dense = self.known[-1]
        self.saved = np.array(
            [0 * dense, *(dense - _layers(thresholded(package, own), photos, config) for own in thresholds)]
        )

    def cycles(self, schedule: Schedule) -> float:
        """Per image."""
        return float(self._sums(schedule)[0].sum() + self.known[-1][3, 0])

    def macs(self, schedule: Schedule) -> float:
        """Multiplications per image that are executed, and not skipped for a zero."""
        _, pv, ffn2 = self._sums(schedule)
        tokens = self.meta["architecture"]["tokens"]
        # with others, only the class token is never dropped: registers are tokens like the patches
        live = [left + 1 if left < self.patches else tokens for left in schedule.keep]
        work = count_work(self.meta, live, round(pv.sum()), round(ffn2.sum()), 0)
        return float(work.macs_executed)

    def _sums(self, schedule: Schedule) -> np.ndarray:
        """Every layer's cycles, nonzero probabilities and nonzero hidden activations."""
        before = (self.patches, *schedule.keep[:-1])
        found = np.zeros((3, len(schedule.keep)))
        for layer, (seen, left) in enumerate(zip(before, schedule.keep, strict=True)):
            share = left / self.patches
            for kind, tokens in enumerate(((seen + left) / 2, seen, left)):
                here = np.interp(tokens, self.tokens, self.known[:, kind, layer])
                found[kind, layer] = here - share * self.saved[schedule.levels[layer], kind, layer]
        return found


class Search:
    """The schedules of one network; a context manager, after which it has its own again.

    Parameters
    ----------
    model : VisionTransformer
        With ReLU.
    card : Card
    package : ModelPackage
        Of the same network, unpruned.
    photos : uint8 array [B, S, S, 3]
        Not those of the test set; `PHOTOS` of them are used, or more, for `WORK`.
    config : HardwareConfig
    lossy : bool
        Whether thresholds are raised, too.
    trim : bool
        As of `schedules.schedule_of`, in the cycles of points.
    progress : callable
        Gets the number of schedules tried.
    """

    def __init__(
        self,
        model: VisionTransformer,
        card: Card,
        package: ModelPackage,
        photos: np.ndarray,
        config: HardwareConfig,
        lossy: bool = True,
        trim: bool = False,
        progress: Progress = lambda tried: None,
    ) -> None:
        if model.config.classes == 1:
            raise RowvitError(
                "of one class every schedule gives the same answer", "name layers and what they keep"
            )
        dense = count_work(package.meta, [package.arch["tokens"]] * package.arch["depth"], 0, 0, 0).macs_dense
        self.photos = spread(photos, max(PHOTOS, round(WORK / dense)))
        self.model, self.package, self.config = model, package, config
        self.lossy = lossy = lossy and not model.config.gated
        self.trim, self.progress = trim, progress
        self.own = model.config
        depth = model.config.depth
        self.patches = model.config.tokens - model.config.prefix
        self.dense = self.base = Schedule((self.patches,) * depth, (0,) * depth)
        self._apply(self.dense)
        samples = hidden_samples(model, card, photos) if lossy else []
        self.thresholds = [tuple(below(values, energy) for values in samples) for energy in ENERGIES if lossy]
        self.few = spread(self.photos, CYCLE_PHOTOS)
        self.costs = Costs(package, self.few, config, self.thresholds)
        self.tried: dict[Schedule, float] = {}
        with torch.inference_mode():
            x = model.embed(normalise(self.photos, card.mean, card.std))
            tokens = torch.arange(x.shape[1]).expand(len(x), -1)
            self.streams = [(x, tokens)]  # before every block
        self.log_dense = self._base(self.dense).log_softmax(dim=-1)

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        set_pruning(self.model, self.own.pruning)
        set_ffn2(self.model, self.own.ffn2_rule, self.own.thresholds)

    def within(self, cycles: float | None = None, macs_saved: float | None = None) -> Point:
        """The schedule with the least divergence that takes so many cycles and saves such a share of MACs.

        Both are the cycle model's and the integer reference's, not those of the tables.

        Raises
        ------
        RowvitError
            No schedule is within the budget; the message names the fastest one.
        """
        most, left = cycles or np.inf, max(1 - (macs_saved or 0.0), 1e-9)
        dense = self.point(self.dense)
        # zeros behind ReLU count as saved
        every = self.costs.macs(self.dense) / (1 - dense.macs_saved)
        # for each patch of the last block, as the tables are of the network with all of that
        spared = (self.costs.cycles(self.dense) - dense.cycles) / self.patches if self.trim else 0.0

        def cost(schedule: Schedule) -> float:
            cycles = self.costs.cycles(schedule) - spared * schedule.keep[-1]
            return max(cycles / most, self.costs.macs(schedule) / every / left)

        def over(point: Point) -> float:
            return max(point.cycles / most, (1 - point.macs_saved) / left)

        if over(dense) <= 1:
            return dense
        aim = 1.0
        for _ in range(_AIMS):
            found = self.best(cost, aim)
            if found is None:
                break
            point = self.point(found)
            if over(point) <= 1:
                return point
            aim *= 0.998 / over(point)  # the tables are off by that
        strictest = {(level,) * len(self.dense.levels) for level in (0, len(ENERGIES) if self.lossy else 0)}
        ends = [self.point(Schedule((1,) * len(self.dense.keep), levels)) for levels in strictest]
        if over(nearest := min(ends, key=over)) <= 1:
            return nearest
        fastest = min(ends, key=lambda one: one.cycles)
        raise RowvitError(
            f"no schedule is within the budget; the fastest takes {fastest.cycles:,.0f} cycles and saves"
            f" {fastest.macs_saved:.1%} of the MACs"
        )

    def best(self, cost: Callable[[Schedule], float], limit: float) -> Schedule | None:
        """The schedule with the least divergence whose cost, by the tables, is within a limit; None if none
        that is tried is.
        """
        if cost(self.dense) <= limit:
            return self.dense
        depth = len(self.dense.keep)
        regular = sorted(set(self.regular(cost, limit, self.dense.levels)), key=self._divergence)
        shapes = [self._drops(one) for one in regular[:PAIRS]]
        for level in _LEVELS if self.lossy else ():
            own = self.regular(cost, limit, (level,) * depth)
            regular += [one for one in own if not shapes or self._drops(one) in shapes]
        if not regular:  # the last block may drop some, too, which few heads take notice of
            strictest = (len(ENERGIES) if self.lossy else 0,) * depth
            regular = [*self.regular(cost, limit, strictest, depth)]
        if not regular:
            return None
        best = min(regular, key=self._divergence)
        for _ in range(ROUNDS):
            self._base(best)
            found = self._traded(best, cost, limit)
            if found is None:
                break
            best = found
        self._base(self.dense)
        return best

    def point(self, schedule: Schedule) -> Point:
        """A schedule with the cycle model's cycles."""
        layers, rho = shares_of(schedule.keep, self.patches)
        thresholds = self._thresholds(schedule)
        pruning = schedule_of(self.model, layers, rho, self.trim)
        package = pruned(thresholded(self.package, thresholds), pruning)
        cycles, saved = cycles_of(package, self.few, self.config)
        divergence = self._divergence(schedule)
        return Point(layers, rho, cycles, saved, thresholds=thresholds, divergence=divergence)

    def regular(
        self, cost: Callable[[Schedule], float], limit: float, levels: tuple[int, ...], end: int = 0
    ) -> Iterator[Schedule]:
        """Those that drop the same share after regularly spaced blocks, as little as the limit allows.

        The blocks are before ``end``; by default that is the last one.
        """
        depth = len(self.dense.keep)
        end = end or depth - 1
        for first in range(end):
            for stride in sorted({1, 2, max(1, depth // 4)}):
                blocks = range(first, end, stride)
                for chosen in {blocks[:3], blocks}:
                    low, high = _FEWEST, 1.0  # what is kept: too little, and too much
                    if cost(self._geometric(chosen, low, levels)) > limit:
                        continue
                    for _ in range(12):
                        middle = (low + high) / 2
                        if cost(self._geometric(chosen, middle, levels)) <= limit:
                            low = middle
                        else:
                            high = middle
                    yield self._geometric(chosen, low, levels)

    def _geometric(self, blocks: Sequence[int], share: float, levels: tuple[int, ...]) -> Schedule:
        left, keep = float(self.patches), []
        for block in range(len(self.dense.keep)):
            left *= share if block in blocks else 1.0
            keep.append(max(1, round(left)))
        return Schedule(tuple(keep), levels)

    def _traded(self, now: Schedule, cost: Callable[[Schedule], float], limit: float) -> Schedule | None:
        """With tokens or a threshold of one place traded for those of another; None if nothing is gained."""
        size, depth = max(1, self.patches // 24), len(now.keep)
        moves: list[tuple[Callable[[Schedule], Schedule | None], float, float]] = []
        for place in range(depth):
            for more in (size, -size) if place < depth - 1 else ():
                moves.append(
                    self._move(now, cost, lambda s, p=place, m=more: s.with_tokens(p, m, self.patches))
                )
            for more in (1, -1) if self.lossy else ():
                moves.append(self._move(now, cost, lambda s, p=place, m=more: s.with_level(p, m)))
        known = [move for move in moves if np.isfinite(move[1])]
        pairs = [
            (gain[1] + loss[1], gain, loss)
            for gain in known
            for loss in known
            if gain[1] < 0 and gain is not loss and cost(now) + gain[2] + loss[2] <= limit
        ]
        found, least = None, self._divergence(now)
        for expected, gain, loss in sorted(pairs, key=lambda pair: pair[0])[:PAIRS]:
            half = gain[0](now)
            both = None if half is None else loss[0](half)
            if expected >= 0 or both is None or cost(both) > limit:
                continue
            if (divergence := self._divergence(both)) < least:
                found, least = both, divergence
        return found

    def _move(
        self,
        now: Schedule,
        cost: Callable[[Schedule], float],
        moved: Callable[..., Schedule | None],
    ) -> tuple[Callable[[Schedule], Schedule | None], float, float]:
        """A move, and what it changes of divergence and cost; infinite if it cannot be."""
        after = moved(now)
        if after is None:
            return moved, np.inf, 0.0
        return moved, self._divergence(after) - self._divergence(now), cost(after) - cost(now)

    def _divergence(self, schedule: Schedule) -> float:
        """Mean over the photos of KL(unpruned, this), in nats."""
        if schedule not in self.tried:
            both = zip(schedule.keep, self.base.keep, schedule.levels, self.base.levels, strict=True)
            # the blocks before the first that differs have run
            first = next(
                (at for at, (a, b, c, d) in enumerate(both) if a != b or c != d), len(schedule.keep) - 1
            )
            self._apply(schedule)
            x, tokens = self.streams[first]
            with torch.inference_mode():
                for layer in range(first, self.model.config.depth):
                    x, tokens = self.model.step(layer, x, tokens)
                dense, log = self.log_dense, self._logits(x).log_softmax(dim=-1)
                self.tried[schedule] = float((dense.exp() * (dense - log)).sum(dim=-1).mean())
            self.progress(len(self.tried))
        return self.tried[schedule]

    def logits_of(self, schedule: Schedule) -> torch.Tensor:
        """Logits of the photos, float64 [photos, classes]."""
        found = self._base(schedule)
        self._base(self.dense)
        return found

    def _base(self, schedule: Schedule) -> torch.Tensor:
        """Keep the residual stream before every block of a schedule; its logits."""
        self.base, (x, tokens) = schedule, self.streams[0]
        self._apply(schedule)
        with torch.inference_mode():
            self.streams = [(x, tokens)]
            for layer in range(self.model.config.depth):
                x, tokens = self.model.step(layer, x, tokens)
                self.streams.append((x, tokens))
            return self._logits(x)

    def _apply(self, schedule: Schedule) -> None:
        set_pruning(self.model, schedule_of(self.model, *shares_of(schedule.keep, self.patches)))
        set_ffn2(self.model, self.own.ffn2_rule, self._thresholds(schedule))

    def _drops(self, schedule: Schedule) -> tuple[int, ...]:
        """Blocks that drop tokens."""
        return shares_of(schedule.keep, self.patches)[0]

    def _thresholds(self, schedule: Schedule) -> tuple[float, ...]:
        if not any(schedule.levels):
            return ()
        return tuple(self.thresholds[n - 1][layer] if n else 0.0 for layer, n in enumerate(schedule.levels))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.classify(x).double()


def _layers(package: ModelPackage, photos: np.ndarray, config: HardwareConfig) -> np.ndarray:
    """Means [4, depth] of every layer: cycles, nonzero probabilities, nonzero hidden activations.

    The last row begins with the cycles of embedding and head.
    """
    program = lower(package, config)
    images = run(package, patchify(photos, package.arch["patch_size"]))
    found = []
    for image in images:
        first, *layers, head = predict(program, config, statistics=measured(image.counts)).layer_cycles
        rest = [first + head] + [0] * (len(layers) - 1)
        found.append([layers, image.counts.pv_nonzeros, image.counts.ffn2_nonzeros, rest])
    return np.mean(np.array(found, float), axis=0)
