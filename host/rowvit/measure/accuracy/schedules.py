# SPDX-License-Identifier: Apache-2.0
"""Token schedules and FFN2 thresholds by hand: what they cost in accuracy, and what they save in cycles.

Cycles are predicted by the cycle model, from a package of the network and the data of a few photos; MACs
alone would not show what weights and drains cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.package import ModelPackage, keep_schedule
from rowvit.hardware.config import HardwareConfig
from rowvit.measure.accuracy.evaluation import integer_work
from rowvit.measure.draw import plots
from rowvit.model.prune import changed, set_ffn2, set_pruning
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, predict
from rowvit.photos import spread
from rowvit.quant.quantise import QuantOptions, default_chunk, integer_threshold, quantise
from rowvit.quant.smooth import centre_keys

if TYPE_CHECKING:
    from torch import Tensor

CYCLE_PHOTOS = 4  # go through the cycle model
_SAMPLED = 200  # photos whose hidden activations thresholds are chosen by
_CALIBRATION = 64  # photos of which a `stand_in` takes its scales
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
    top1: float = math.nan  #: share of the photos; not a number without labels
    agreement: float = math.nan  #: share of the photos with the unpruned network's class
    thresholds: tuple[float, ...] = ()  #: of hidden activations, one for each layer, or none
    divergence: float = 0.0  #: of the logits from the unpruned network's, by `search`

    @property
    def shares(self) -> str:
        """``rho`` for display."""
        return f"{self.rho:g}" if isinstance(self.rho, float) else " ".join(f"{s:.2g}" for s in self.rho)


def cycles_of(package: ModelPackage, photos: np.ndarray, config: HardwareConfig) -> tuple[float, float]:
    """Mean cycles of an image by the cycle model, and share of MACs saved, over photos [B, S, S, 3]."""
    work = integer_work(package, photos, config=config, timed=range(len(photos)))
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
        right += int((classes(model, card, photos[part]) == labels[part]).sum())
        progress()
    return right / len(photos)


def stand_in(model: VisionTransformer, card: Card, photos: np.ndarray, rule: str) -> ModelPackage:
    """A package of a float network for the cycle model, calibrated on some of the photos [B, S, S, 3].

    It drops no tokens, and no hidden activations.
    """
    photos = spread(photos, _CALIBRATION)
    whole = changed(model, pruning=(), thresholds=())
    options = QuantOptions(
        card.name,
        card.classes,
        card.mean,
        card.std,
        ffn2_rule=rule,
        tile_rows=model.config.tile_rows,
        ffn_chunk=default_chunk(model.config),
    )
    return quantise(centre_keys(whole, card.mean, card.std, photos), photos, options)


def pruned(package: ModelPackage, schedule: Sequence[dict]) -> ModelPackage:
    """The package with a schedule of its network."""
    return ModelPackage(package.meta | {"pruning": list(schedule)}, package.tensors)


def thresholded(package: ModelPackage, thresholds: Sequence[float]) -> ModelPackage:
    """The package with thresholds of its float network."""
    if not thresholds:
        return package
    params, scales = package.meta["params"], package.meta["scales"]
    layers: list[dict[str, Any]] = [
        own | {"thr": integer_threshold(threshold, scales[f"layers.{layer}.hidden"])}
        for layer, (own, threshold) in enumerate(zip(params["layers"], thresholds, strict=True))
    ]
    return ModelPackage(package.meta | {"params": params | {"layers": layers}}, package.tensors)


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
    set_ffn2(model, rule, point.thresholds)
    card.accuracy = {}
    if point.layers:
        blocks = ", ".join(map(str, point.layers))
        card.history.append(f"tokens pruned after attention of blocks {blocks}: {point.shares} of them stay")
    if point.thresholds:
        card.history.append(dropped_below(point.thresholds))
    if trim:
        card.history.append("the last block's FFN runs on the class token alone")


def dropped_below(thresholds: Sequence[float]) -> str:
    """For a card's history."""
    return f"hidden activations dropped below {', '.join(f'{value:.3g}' for value in thresholds)}"


def measure(
    model: VisionTransformer,
    card: Card,
    package: ModelPackage,
    photos: np.ndarray,
    config: HardwareConfig,
    layers: Sequence[int],
    rho: float | tuple[float, ...],
    trim: bool = False,
) -> Point:
    """A schedule's cycles and MACs; accuracy is for `classes` to find.

    Parameters
    ----------
    model : VisionTransformer
    card : Card
    package : ModelPackage
        Of the same network, with any schedule.
    photos : uint8 array [B, S, S, 3]
        `CYCLE_PHOTOS` of them go through the cycle model.
    config : HardwareConfig
    layers, rho, trim
        As of `schedule_of`.
    """
    schedule = schedule_of(model, layers, rho, trim)
    cycles, saved = cycles_of(pruned(package, schedule), spread(photos, CYCLE_PHOTOS), config)
    return Point(tuple(layers), rho, cycles, saved)


def classes(
    model: VisionTransformer, card: Card, photos: np.ndarray, point: Point | None = None, trim: bool = False
) -> np.ndarray:
    """Classes of photos [B, S, S, 3] by a float network, with a point's schedule if one is given."""
    config = model.config
    if point is not None:
        set_pruning(model, schedule_of(model, point.layers, point.rho, trim))
        set_ffn2(model, config.ffn2_rule, point.thresholds)
    try:
        return predict(model, photos, card.mean, card.std, BATCH).argmax(axis=1)
    finally:
        set_pruning(model, config.pruning)
        set_ffn2(model, config.ffn2_rule, config.thresholds)


def judged(point: Point, found: np.ndarray, dense: np.ndarray, labels: np.ndarray | None) -> Point:
    """The point with its agreement and, if there are labels, top-1, by the `classes` that were found."""
    top1 = math.nan if labels is None else float((found == labels).mean())
    return replace(point, top1=top1, agreement=float((found == dense).mean()))


def shares_of(keep: Sequence[int], patches: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """``layers`` and ``rho`` of `schedule_of` that leave ``keep`` of the patches behind every block."""
    before = (patches, *keep)
    layers = [layer for layer, left in enumerate(keep) if left < before[layer]]
    return tuple(layers), tuple(keep[layer] / patches for layer in layers)


def tile_cycles(package: ModelPackage, photos: np.ndarray, config: HardwareConfig) -> dict[str, float]:
    """Mean cycles of an image under FFN2 rule "tile", over some of the photos [B, S, S, 3], as "tile".

    Empty if the configuration has no room for the rule's masks.
    """
    tiled = ModelPackage(package.meta | {"ffn2_rule": "tile"}, package.tensors)
    try:
        return {"tile": cycles_of(tiled, spread(photos, CYCLE_PHOTOS), config)[0]}
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
    is raised step by step until the accuracy falls too far. The network keeps the thresholds, and its card
    says so.

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

    Raises
    ------
    RowvitError
        The network's FFN is gated.
    """
    if model.config.gated:
        raise RowvitError("a gated FFN has no thresholds", "leave out --max-loss")
    set_ffn2(model, rule)
    exact = top1(model, card, photos, labels)
    samples = hidden_samples(model, card, photos)
    found = (0.0,) * model.config.depth
    for energy in ENERGIES:
        tried = tuple(below(values, energy) for values in samples)
        set_ffn2(model, rule, tried)
        reached = top1(model, card, photos, labels)
        progress(energy, reached)
        if reached < exact - loss:
            break
        found = tried
    if any(found):
        card.history.append(dropped_below(found))
    set_ffn2(model, rule, found if any(found) else ())
    return found


def hidden_samples(model: VisionTransformer, card: Card, photos: np.ndarray) -> list[np.ndarray]:
    """Nonzero hidden activations of every layer, sorted; at most some tens of thousands of each."""
    rng = np.random.default_rng(0)
    samples: dict[str, list[np.ndarray]] = {f"layers.{i}.hidden": [] for i in range(model.config.depth)}

    def observe(name: str, value: Tensor) -> None:
        if name in samples:
            flat = value.flatten().numpy()
            flat = flat[flat > 0]
            if flat.size:
                samples[name].append(flat[rng.integers(0, flat.size, min(flat.size, 1 << 14))])

    predict(model, spread(photos, _SAMPLED), card.mean, card.std, BATCH, observe)
    return [np.sort(np.concatenate(parts)) if parts else np.zeros(0) for parts in samples.values()]


def below(values: np.ndarray, energy: float) -> float:
    """The threshold below which sorted values hold at most the share ``energy`` of their sum of squares."""
    if not len(values):
        return 0.0
    held = np.cumsum(np.square(values, dtype=np.float64))
    index = int(np.searchsorted(held, energy * held[-1], side="right"))
    return float(values[min(index, len(values) - 1)])


def plot(points: Sequence[Point], chosen: Point, config: HardwareConfig, path: Path) -> None:
    """A picture of accuracy, or agreement without labels, against cycles: all points, and the chosen one.

    A line joins the front: the points that are better than every faster one.

    Raises
    ------
    RowvitError
        Matplotlib is missing, or the file cannot be written.
    """
    labelled = not math.isnan(chosen.top1)

    def height(point: Point) -> float:
        return 100 * (point.top1 if labelled else point.agreement)

    figure = plots.figure(9, 6)
    axes = figure.add_subplot()
    line = sorted(points, key=lambda p: (p.cycles, -height(p)))
    axes.plot([p.cycles / 1e6 for p in line], [height(p) for p in line], "o", color=plots.BLUE)
    front = [p for i, p in enumerate(line) if all(height(p) > height(faster) for faster in line[:i])]
    axes.plot([p.cycles / 1e6 for p in front], [height(p) for p in front], "-", color=plots.BLUE)
    axes.plot(chosen.cycles / 1e6, height(chosen), "*", color="black", markersize=16)
    for point in line:
        place = point.cycles / 1e6, height(point)
        label = f"{len(point.layers)} blocks" if point.layers else "unpruned"
        axes.annotate(label, place, xytext=(4, -12), textcoords="offset points", fontsize=8)
    ylabel = "top-1, %" if labelled else "photos with the unpruned network's class, %"
    axes.set(xlabel=f"million cycles per image on {config.name} (cycle model)", ylabel=ylabel)
    axes.set_title("star: chosen; line: the front; labels: blocks that drop tokens", fontsize=10)
    axes.grid(linewidth=0.3, alpha=0.5)
    plots.save(figure, path)
