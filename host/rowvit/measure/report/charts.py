# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report, as SVG embedded in the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.measure.draw.plots import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    PURPLE,
    SKY,
    VERMILION,
    embedded,
    figure,
    number,
)
from rowvit.measure.speed.baseline import disturbances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of everything that is neither a bar nor a curve
_INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")


_LONGEST = 24  # letters of a file's name below or above a plot


@dataclass
class Plot:
    """A picture: what it shows, and ``source`` for an ``img`` element.

    ``others`` are for media that are wanted, each with the media's query.
    """

    caption: str
    source: str = ""
    others: Sequence[tuple[str, str]] = ()


def shorter(name: str) -> str:
    """A file's name that fits below a plot, with its beginning and its end."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"


@contextmanager
def _drawn(caption: str, height: float) -> Iterator[tuple[Plot, Axes]]:
    """A plot, which has its picture at the end, and axes to draw it on, narrow enough for a phone."""
    picture = figure(4.6, height)  # first, since its error says what to do without matplotlib
    import matplotlib

    style: Any = {
        "svg.hashsalt": caption,
        "font.size": 9,
        "svg.fonttype": "path",
        **dict.fromkeys(_INKED, INK),
    }
    with matplotlib.rc_context(style):
        plot, axes = Plot(caption), picture.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield plot, axes
        plot.source = embedded(picture, "svg+xml")


def _legend(axes: Axes, columns: int) -> None:
    """Above the axes, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        frameon=False,
        ncols=columns,
        handlelength=1.2,
        columnspacing=1.2,
    )


def latency(figures: dict[str, Any]) -> Plot:
    """The distribution of latency."""
    found = figures["latency_ms"]
    with _drawn(f"Latency of {len(found['values'])} images, one after the other", 2.6) as (plot, axes):
        values = np.sort(found["values"])
        axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post", color=BLUE)
        axes.plot(values, np.arange(1, len(values) + 1) / len(values), ".", color=BLUE, markersize=4)
        for name, color, line in (("median", GREY, "-"), ("p90", VERMILION, "--"), ("p99", PURPLE, ":")):
            label = f"{name} {number(found[name])} ms"
            axes.axvline(found[name], color=color, linestyle=line, linewidth=1.2, label=label)
        axes.set(xlabel="latency of an image, ms", ylabel="share of images", ylim=(0, 1.03))
        axes.locator_params(axis="x", nbins=6)
        _legend(axes, 3)
    return plot


def phases(figures: dict[str, Any]) -> Plot:
    """Where the time of an image goes."""
    alone, together = (figures["phases"][key] for key in ("latency", "pipelined"))
    names = [phase["name"] for phase in alone]
    with _drawn("Where the time goes", 0.9 + 0.5 * len(names)) as (plot, axes):
        batch = figures["pipelined"]["batch"]
        for offset, some, label, color in (
            (-0.2, alone, "one by one", BLUE),
            (0.2, together, f"batches of {batch}", VERMILION),
        ):
            at = [names.index(phase["name"]) + offset for phase in some]
            bars = axes.barh(at, [phase["ms"] for phase in some], 0.38, color=color, label=label)
            axes.bar_label(bars, [f" {number(phase['ms'])}" for phase in some], fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("ms per image; phases of one image overlap with others")
        _legend(axes, 2)
    return plot


def layers(runs: list[tuple[str, dict[str, Any]]]) -> Plot:
    """Cycles of every layer; for a single run also how busy the array is."""
    names = [layer["name"] for layer in runs[0][1]["layers"]]
    caption = "Cycles by layer" + ("" if len(runs) > 1 else ", and the array's share")
    with _drawn(caption, 2.8) as (plot, axes):
        width = 0.8 / len(runs)
        for number, (label, figures) in enumerate(runs):
            at = np.arange(len(names)) + (number - (len(runs) - 1) / 2) * width
            cycles = np.array([layer["cycles"] for layer in figures["layers"]]) / 1e3
            color = COLOURS[number % len(COLOURS)]
            if len(runs) > 1:
                axes.bar(at, cycles, width, color=color, label=shorter(label))
                continue
            busy = cycles * [layer["busy"] for layer in figures["layers"]]
            axes.bar(at, cycles, width, color=SKY, alpha=0.35, label="array waits")
            axes.bar(at, busy, width, color=color, label="array multiplies")
        axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 8 else 0)
        axes.set(xlabel="layer", ylabel="thousand cycles")
        _legend(axes, 2)
    return plot


def rates(name: str, document: dict[str, Any]) -> Plot:
    """Images per second, and below a gap the CPU's, which is measured in any case.

    Hatched is what is simulated, or disturbed by other programs.
    """
    figures, host = document["throughput"], document["host"]
    own = {"sim": "simulated cycles at the core's clock", "board": "measured on the board"}.get(
        document["target"], "measured"
    )
    rows = [(0.0, f"{name}\n({own})", figures["images_per_second"], document["target"] == "sim", "")]
    marks = disturbances(figures["baseline"], host)
    for place, (speed, mark) in enumerate(zip(figures["baseline"], marks, strict=True)):
        threads = f"{speed['threads']} thread" + "s" * (speed["threads"] > 1)
        label = f"{speed['runtime']}, {threads}, batch {speed['batch']}"
        rows.append((1.8 + place, label, speed["images_per_second"], bool(mark), " disturbed" * bool(mark)))
    caption = f"Above, {name}: {own}. Below, measured: the float network on the CPU, load {host['load']:.1f}"
    with _drawn(caption, 0.9 + 0.26 * len(rows)) as (plot, axes):
        for at, _, rate, hatched, note in rows:
            color = BLUE if at else VERMILION
            face, hatch = ("none", "///") if hatched else (color, None)
            bar = axes.barh(at, rate, 0.7, color=face, edgecolor=color, hatch=hatch)
            axes.bar_label(bar, [f" {number(rate)}{note}"], fontsize=8)
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_yticks([row[0] for row in rows], [row[1] for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.35 if any(marks) else 0.17)
        axes.set_xlabel("images per second")
    return plot


def power(document: dict[str, Any]) -> Plot:
    """Power over time, with the measured parts of the passes."""
    samples, passes = document["power"]["samples"], document["passes"]
    times = np.array(samples["times"]) - passes[0]["start"]
    with _drawn("Power over time; shaded: what counts", 2.6) as (plot, axes):
        origin = passes[0]["start"]
        # a line from pass to pass would show what was not measured
        edges = [p["start"] - origin for p in passes[1:]]
        for part in np.split(np.arange(len(times)), np.searchsorted(times, edges)):
            axes.plot(times[part], np.array(samples["watts"])[part], color=INK, linewidth=0.6)
        seen = set()
        for p in passes:
            color = {"idle": BLUE, "busy": VERMILION}[p["kind"]]
            label = None if p["kind"] in seen else p["kind"]
            seen.add(p["kind"])
            axes.axvspan(p["begin"] - origin, p["end"] - origin, color=color, alpha=0.25, lw=0, label=label)
        axes.set(xlabel="seconds", ylabel="power, W")
        _legend(axes, 2)
    return plot


def pairs(document: dict[str, Any]) -> Plot:
    """Mean power of both passes of every pair."""
    watts: dict[str, dict[int, float]] = {"idle": {}, "busy": {}}
    for p, mean in zip(document["passes"], document["power"]["pass_watts"], strict=True):
        watts[p["kind"]][p["pair"]] = mean
    with _drawn("Idle and busy passes, pair by pair", 2.6) as (plot, axes):
        for pair, idle in watts["idle"].items():
            axes.plot([pair, pair], [idle, watts["busy"][pair]], color=GREY, linewidth=1, zorder=1)
        for kind, color, mark in (("idle", BLUE, "o"), ("busy", VERMILION, "s")):
            axes.plot(list(watts[kind]), list(watts[kind].values()), mark, color=color, label=kind, zorder=2)
        axes.set(xlabel="pair of passes", ylabel="mean power, W")
        axes.locator_params(axis="x", integer=True)
        _legend(axes, 2)
    return plot


def ratios(rows: list[tuple[str, list[float]]], labels: list[str]) -> Plot:
    """Every quantity of the later runs over that of the first."""
    with _drawn(f"Relative to {labels[0]}", 0.8 + 0.3 * len(rows) * (len(labels) - 1)) as (plot, axes):
        width = 0.8 / (len(labels) - 1)
        for number in range(1, len(labels)):
            at = np.arange(len(rows)) + (number - len(labels) / 2) * width
            factors = [values[number] / values[0] for _, values in rows]
            color, lengths = COLOURS[number % len(COLOURS)], [factor - 1 for factor in factors]
            bars = axes.barh(at, lengths, width, left=1, color=color, label=shorter(labels[number]))
            axes.bar_label(bars, [f" {factor:.3f} " for factor in factors], fontsize=8)
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set_xlabel(f"ratio to {shorter(labels[0])}")
        if len(labels) > 2:
            _legend(axes, 3)
    return plot
