# SPDX-License-Identifier: Apache-2.0
"""Token schedules and FFN2 thresholds: what they cost in accuracy, and what they save in cycles.

Cycles are predicted by the cycle model, from a package of the network and the data of a few photos; MACs
alone would not show what weights and drains cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.hardware.config import HardwareConfig
from rowvit.measure.accuracy.evaluation import integer_work
from rowvit.measure.draw import plots
from rowvit.model.prune import set_ffn2, set_pruning
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, normalise, predict
from rowvit.quant.quantise import QuantOptions, default_chunk, quantise
from rowvit.quant.smooth import centre_keys

if TYPE_CHECKING:
    from torch import Tensor

CYCLE_PHOTOS = 4  # go through the cycle model
RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
ENERGIES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
BATCH = 50  # photos that go through the float network at once


@dataclass(frozen=True)
class Point:
    """A schedule, its cost and its accuracy."""

    layers: tuple[int, ...]  #: blocks after whose attention tokens are dropped; empty for none
    #: share of the patch tokens that each of them keeps, or shares of all patches that are left behind them
    rho: float | tuple[float, ...]
    cycles: float  #: per image, on average
    macs_saved: float  #: as a share of the dense network's; products with zeros behind ReLU count as saved
    top1: float  #: share of the photos; not a number without labels

    @property
    def shares(self) -> str:
        """``rho`` for display."""
        return f"{self.rho:g}" if isinstance(self.rho, float) else " ".join(f"{s:g}" for s in self.rho)


def schedules(depth: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Layers and ratios that a search tries: no pruning, then three evenly spaced blocks, at every ratio."""
    yield (), 1.0
    step = max(1, depth // 4)
    for first in range(1, step + 2):
        layers = tuple(layer for layer in range(first, first + 3 * step, step) if layer < depth - 1)
        if layers:
            yield from ((layers, rho) for rho in RATIOS)


def cycles_of(package: ModelPackage, photos: np.ndarray, config: HardwareConfig) -> tuple[float, float]:
    """Mean cycles of an image by the cycle model, and share of MACs saved, over photos [B, S, S, 3]."""
    work = integer_work(package, photos, config=config, cycles=len(photos))
    return float(work.cycles.mean()), float(1 - work.macs_executed.sum() / work.macs_dense.sum())


def top1(
    model: VisionTransformer,
    card: Card,
    photos: np.ndarray,
    labels: np.ndarray,
    progress: Callable[[], None] = lambda: None,
) -> float:
    """Share of the photos [B, S, S, 3] that a float network classifies correctly.

    ``progress`` is called after every `BATCH` of them.
    """
    right = 0
    for first in range(0, len(photos), BATCH):
        part = slice(first, first + BATCH)
        guesses = predict(model, photos[part], card.mean, card.std, BATCH).argmax(axis=1)
        right += int((guesses == labels[part]).sum())
        progress()
    return right / len(photos)


def stand_in(model: VisionTransformer, card: Card, photos: np.ndarray, rule: str) -> ModelPackage:
    """A package of a float network for the cycle model, calibrated on photos [B, S, S, 3]."""
    chunk = default_chunk(model.config.hidden)
    options = QuantOptions(card.name, card.classes, card.mean, card.std, ffn2_rule=rule, ffn_chunk=chunk)
    return quantise(centre_keys(model, card.mean, card.std, photos), photos, options)


def pruned(package: ModelPackage, schedule: Sequence[dict]) -> ModelPackage:
    """The package with a schedule of its network."""
    return ModelPackage(package.meta | {"pruning": list(schedule)}, package.tensors)


def schedule_of(
    model: VisionTransformer, layers: Sequence[int], rho: float | tuple[float, ...], trim: bool = False
) -> list[dict]:
    """The schedule that keeps the share ``rho`` of the patch tokens in each of ``layers``.

    Several shares are of all patches, one for each of ``layers``.

    With ``trim``, the last block drops all tokens but the class token after its attention. Its head reads no
    other, so the logits stay what they are (DiffRate's published schedules, arXiv 2305.17997, leave three).

    Raises
    ------
    RowvitError
        If the head reads more than the class token, with ``trim``.
    """
    schedule = keep_schedule(model.config.tokens - model.config.prefix, layers, rho)
    if not trim:
        return schedule
    last = model.config.depth - 1
    if model.config.exempt > 1 or model.config.pool != "token":
        raise RowvitError(
            "the last block cannot be trimmed, as the head reads more than the class token",
            "leave out --trim",
        )
    return [step for step in schedule if step["layer"] != last] + [{"layer": last, "keep": 0, "threshold": 0}]


def apply(model: VisionTransformer, card: Card, point: Point, rule: str, trim: bool = False) -> None:
    """Give a float network a schedule and an FFN2 rule; the card loses the accuracy measured before."""
    set_pruning(model, schedule_of(model, point.layers, point.rho, trim))
    set_ffn2(model, rule)
    card.accuracy = {}
    if point.layers:
        blocks = ", ".join(map(str, point.layers))
        card.history.append(f"tokens pruned after attention of blocks {blocks}: {point.shares} of them stay")
    if trim:
        card.history.append("the last block's FFN runs on the class token alone")


def explore(
    model: VisionTransformer,
    card: Card,
    package: ModelPackage,
    photos: np.ndarray,
    labels: np.ndarray | None,
    config: HardwareConfig,
    tried: Sequence[tuple[tuple[int, ...], float | tuple[float, ...]]],
    progress: Callable[[Point], None] = lambda point: None,
    trim: bool = False,
) -> list[Point]:
    """Measure schedules, those that drop tokens first before those that drop them later.

    The blocks before the first drop are the same for all schedules and run only once; the residual
    stream that they leave is kept, ``4 * tokens * dim`` bytes for each photo. The network keeps the schedule
    that it had.

    Parameters
    ----------
    model : VisionTransformer
        With ReLU.
    card : Card
    package : ModelPackage
        Of the same network, with any schedule.
    photos : uint8 array [B, S, S, 3]
        Not those of the test set. The first `CYCLE_PHOTOS` go through the cycle model.
    labels : int array [B], optional
        Without them no accuracy is found.
    config : HardwareConfig
    tried : sequence of (layers, rho)
    progress : callable
        Gets every point when it is found.
    trim : bool
        As of `schedule_of`.

    Returns
    -------
    list of Point, in the order of ``tried``
    """
    points: dict[int, Point] = {}
    own, blocks, depth = model.config.pruning, model.blocks, model.config.depth
    parts = [photos[first : first + BATCH] for first in range(0, len(photos) * (labels is not None), BATCH)]
    model.eval()
    with torch.inference_mode():
        stream = [model.embed(normalise(part, card.mean, card.std)) for part in parts]
        passed = 0  # blocks
        first_drop = [min(layers, default=depth) for layers, _ in tried]
        for index in sorted(range(len(tried)), key=first_drop.__getitem__):
            layers, rho = tried[index]
            schedule = schedule_of(model, layers, rho, trim)
            set_pruning(model, schedule)
            for block in blocks[passed : first_drop[index]]:
                for place, x in enumerate(stream):
                    stream[place], _ = block(x)
            passed = first_drop[index]
            guesses = []
            for x in stream:
                for block in blocks[passed:]:
                    x, _ = block(x)
                guesses.append(model.classify(x).argmax(dim=1).numpy())
            found = math.nan if labels is None else float((np.concatenate(guesses) == labels).mean())
            cycles, saved = cycles_of(pruned(package, schedule), photos[:CYCLE_PHOTOS], config)
            points[index] = Point(layers, rho, cycles, saved, found)
            progress(points[index])
    set_pruning(model, own)
    return [points[index] for index in range(len(tried))]


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front, by cycles: points that no other beats in cycles without being less accurate."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cycles, -p.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def choose(points: Sequence[Point], cycles: float | None = None, macs_saved: float | None = None) -> Point:
    """The most accurate point within a budget; among equally accurate ones the fastest.

    Raises
    ------
    RowvitError
        No point is within it; the message names the fastest one.
    """
    fits = [
        p
        for p in points
        if (cycles is None or p.cycles <= cycles) and (macs_saved is None or p.macs_saved >= macs_saved)
    ]
    if not fits:
        low = min(points, key=lambda p: p.cycles)
        raise RowvitError(
            f"no schedule is within the budget; the fastest takes {low.cycles:,.0f} cycles and saves"
            f" {low.macs_saved:.1%} of the MACs"
        )
    return max(fits, key=lambda p: (p.top1, -p.cycles))


def tile_cycles(package: ModelPackage, photos: np.ndarray, config: HardwareConfig) -> dict[str, float]:
    """Mean cycles of an image under FFN2 rule "tile", over the first photos of [B, S, S, 3], as "tile".

    Empty if the configuration has no room for the rule's masks.
    """
    tiled = ModelPackage(package.meta | {"ffn2_rule": "tile"}, package.tensors)
    try:
        return {"tile": cycles_of(tiled, photos[:CYCLE_PHOTOS], config)[0]}
    except RowvitError:
        return {}


def thresholds_for(
    model: VisionTransformer,
    card: Card,
    photos: np.ndarray,
    labels: np.ndarray,
    loss: float,
    rule: str,
    progress: Callable[[float, float], None] = lambda energy, top1: None,
) -> tuple[float, ...]:
    """The largest thresholds of hidden activations that cost at most ``loss`` of top-1.

    In every layer, activations below the threshold hold the same share of the sum of squares; that share
    is raised step by step until the accuracy falls too far. The network keeps the thresholds.

    Parameters
    ----------
    model : VisionTransformer
        With ReLU, and the schedule that it will run with.
    card : Card
    photos : uint8 array [B, S, S, 3]
    labels : int array [B]
    loss : float
        Share of the photos.
    rule : str
        FFN2 rule that the network gets.
    progress : callable
        Gets each share that was tried, and its top-1.

    Returns
    -------
    tuple of float, one for each layer; all 0 if even the smallest share costs too much
    """
    set_ffn2(model, rule)
    exact = top1(model, card, photos, labels)
    samples = _hidden_samples(model, card, photos)
    found = (0.0,) * model.config.depth
    for energy in ENERGIES:
        tried = tuple(_below(values, energy) for values in samples)
        set_ffn2(model, rule, tried)
        reached = top1(model, card, photos, labels)
        progress(energy, reached)
        if reached < exact - loss:
            break
        found = tried
    set_ffn2(model, rule, found if any(found) else ())
    return found


def _hidden_samples(model: VisionTransformer, card: Card, photos: np.ndarray) -> list[np.ndarray]:
    """Nonzero hidden activations of every layer, sorted; at most some tens of thousands of each."""
    rng = np.random.default_rng(0)
    samples: dict[str, list[np.ndarray]] = {f"layers.{i}.hidden": [] for i in range(model.config.depth)}

    def observe(name: str, value: Tensor) -> None:
        if name in samples:
            flat = value.flatten().numpy()
            flat = flat[flat > 0]
            if flat.size:
                samples[name].append(flat[rng.integers(0, flat.size, min(flat.size, 1 << 14))])

    predict(model, photos[:200], card.mean, card.std, BATCH, observe)
    return [np.sort(np.concatenate(parts)) if parts else np.zeros(0) for parts in samples.values()]


def _below(values: np.ndarray, energy: float) -> float:
    """The threshold below which sorted values hold at most the share ``energy`` of their sum of squares."""
    if not len(values):
        return 0.0
    held = np.cumsum(np.square(values, dtype=np.float64))
    index = int(np.searchsorted(held, energy * held[-1], side="right"))
    return float(values[min(index, len(values) - 1)])


def plot(points: Sequence[Point], chosen: Point, config: HardwareConfig, path: Path) -> None:
    """A picture of accuracy against cycles: all points, the Pareto front, the chosen one.

    Raises
    ------
    RowvitError
        Matplotlib is missing, or the file cannot be written.
    """
    figure = plots.figure(9, 6)
    axes = figure.add_subplot()
    for layers in dict.fromkeys(p.layers for p in points):
        line = sorted((p for p in points if p.layers == layers), key=lambda p: p.cycles)
        label = f"blocks {', '.join(map(str, layers))}" if layers else "dense"
        axes.plot([p.cycles / 1e6 for p in line], [100 * p.top1 for p in line], "o-", alpha=0.6, label=label)
    best = front(points)
    x, y = [p.cycles / 1e6 for p in best], [100 * p.top1 for p in best]
    axes.step(x, y, where="post", color="black", linewidth=1, label="Pareto front")
    axes.plot(chosen.cycles / 1e6, 100 * chosen.top1, "*", color="black", markersize=16, label="chosen")
    for point, place in zip(best, zip(x, y, strict=True), strict=True):
        axes.annotate(f"{point.rho:g}", place, xytext=(4, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel=f"million cycles per image on {config.name} (cycle model)", ylabel="top-1, %")
    axes.grid(linewidth=0.3, alpha=0.5)
    axes.legend(fontsize=9, frameon=False)
    plots.save(figure, path)
