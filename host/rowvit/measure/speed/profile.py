# SPDX-License-Identifier: Apache-2.0
"""Where the cycles of one image go: by layer and unit, from the simulated RTL or from the cycle model.

The RTL says when every operation completes, and what its counters are at that moment. When an operation
began, and whether the array waited for weights or for activations, comes from the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import rowvit
from rowvit.cycles import Prediction, Slice, activity, measured, predict
from rowvit.formats.description import layer_names
from rowvit.formats.program import OperationKind, Program
from rowvit.hardware.activity import REGISTERS
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.host import host_work
from rowvit.hardware.isa import COUNTERS, QUEUE, Engine, Flag
from rowvit.hardware.memory import Memory
from rowvit.measure.draw import plots
from rowvit.reference import patchify, run
from rowvit.targets.target import read_program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rowvit.formats.package import ModelPackage
    from rowvit.sim.device import MemoryModel
    from rowvit.targets.target import Result, Target

_COUNTER = {name: index for index, (name, _) in enumerate(COUNTERS)}
#: tracks of a trace and rows of a plot
TRACKS = {
    Engine.RECV: "input",
    Engine.LOAD: "load",
    Engine.NORM: "LayerNorm",
    Engine.EXEC: "array",
    Engine.DRAIN: "drain",
    Engine.SELECT: "selection",
}


@dataclass
class LayerProfile:
    """One layer; every number but ``macs`` and ``bytes`` is in cycles.

    ``busy``, ``weights``, ``data`` and ``draining`` add up to ``cycles``.
    """

    name: str  #: "embed", the layer's number from 0, or "head"
    cycles: int  #: between the marks at the ends of the layer before and of this one
    predicted: int  #: likewise, by the model
    busy: float  #: the array multiplies
    weights: float  #: it waits for a load (or an instruction),
    data: float  #: for activations,
    draining: float  #: or for the drain of its previous tile
    load: float  #: words arrive, at the rate the memory has
    load_wait: float  #: a load waits for room, or for a mask
    drain: float  #: this unit is busy; likewise the next three
    norm: float
    softmax: float
    select: float
    macs: float  #: multiplications
    bytes: float  #: loaded for this layer's operations, whenever that was


@dataclass
class Profile:
    """One image on one configuration."""

    network: str
    config: HardwareConfig
    memory: Memory
    source: str  #: where the cycles come from
    layers: list[LayerProfile]  #: embedding, layers, head
    timeline: list[Slice]  #: operations in whole cycles, those of an engine one after the other
    result: Result | None  #: of the simulated RTL
    #: `hardware.activity.COUNTS` of the layers, from ``source``; if asked for
    activity: list[dict[str, float]] | None = None

    @property
    def total(self) -> int:
        return sum(layer.cycles for layer in self.layers)

    def host_work(self, side: float) -> dict[str, Any]:
        """What the processor of the configuration's board takes for such an image (`host.host_work`)."""
        loading = sum(layer.load for layer in self.layers) > sum(layer.busy for layer in self.layers)
        milliseconds = self.total / self.config.clock_mhz / 1e3
        return host_work(self.config, side, milliseconds, "memory" if loading else "fabric")


def profile(
    model: ModelPackage | Program,
    image: np.ndarray,
    config: HardwareConfig,
    memory: MemoryModel,
    simulate: bool = True,
    energy: bool = False,
) -> Profile:
    """Profile one image.

    Parameters
    ----------
    model : ModelPackage or Program
        With a package the cycle model knows what the image makes of the data; with a program it assumes it.
    image : uint8 array [S, S, 3]
    config : HardwareConfig
    memory : MemoryModel
    simulate : bool
        Run the RTL; otherwise only the model.
    energy : bool
        Count what an estimate of energy needs, too; the simulator is another one for that.

    Raises
    ------
    RowvitError
        The network or image does not fit, or the simulation fails.
    """
    program = read_program(model, config)
    statistics = None
    if not isinstance(model, Program):
        (reference,) = run(model, patchify(image[None], model.arch["patch_size"]))
        statistics = measured(reference.counts)
    predicted = predict(program, config, memory, statistics)
    name, layers = program.meta["model"]["name"], _modelled(program, predicted)
    if not simulate:
        timeline = _in_order(predicted.timeline, {}, predicted.total)
        counts = activity(program, config, statistics) if energy else None
        source = "cycle model" if statistics else "cycle model, for data that it assumes"
        return Profile(name, config, memory, source, layers, timeline, None, counts)
    with rowvit.open("sim", config=config, memory=memory, activity=energy) as sim:
        sim.load(program)
        result, events, counted = watched(sim, image)
        counts = layer_activity(sim, counted) if energy else None
    layers = _measured(layers, predicted, result, counted, config, memory)
    timeline = _in_order(predicted.timeline, _completions(events), sum(result.layer_cycles))
    return Profile(name, config, memory, "simulated RTL", layers, timeline, result, counts)


def watched(target: Target, image: np.ndarray) -> tuple[Result, np.ndarray, list[dict[str, int]]]:
    """One image [S, S, 3] in simulation: result, `SimDevice.events`, and `layer_counters`."""
    from rowvit.targets.driver import Accelerator

    assert isinstance(target, Accelerator) and target.program is not None
    target.device.watch()
    (result,) = target([image])
    events = target.device.events()
    return result, events, layer_counters(target.program, events, result)


def layer_counters(program: Program, events: np.ndarray, result: Result) -> list[dict[str, int]]:
    """What embedding, each layer, and head added to the RTL's counters, between the marks at their ends.

    Parameters
    ----------
    program : Program
    events : structured array
        Of `SimDevice.events`, for a start with one image.
    result : Result
        Of that image.
    """
    counters = (events["counters"][mark] for mark in _marks(program, events))
    at = [np.zeros(len(COUNTERS), int), *counters, [result.counters[name] for name, _ in COUNTERS]]
    return [
        {name: int(after[i]) - int(before[i]) for name, i in _COUNTER.items()}
        for before, after in pairwise(at)
    ]


def layer_activity(target: Target, counters: list[dict[str, int]]) -> list[dict[str, float]]:
    """What embedding, each layer, and head added to `hardware.activity.COUNTS`, likewise.

    Parameters
    ----------
    target : Target
        In simulation, opened with ``activity``; it has run one image by `watched`.
    counters : list of dict
        Of that image, from `layer_counters`.
    """
    from rowvit.targets.driver import Accelerator

    assert isinstance(target, Accelerator) and target.program is not None
    marks = _marks(target.program, target.device.events())
    found: list[dict[str, float]] = [{name: layer[name] for name in REGISTERS} for layer in counters]
    for name, counts in target.device.activity().items():
        added = np.diff([0, *counts[marks], counts[-1]]).astype(float)
        for layer, count in zip(found, added.tolist(), strict=True):
            layer[name] = count
    return found


def _marks(program: Program, events: np.ndarray) -> list[int]:
    """Of events of a start with one image, those that end the embedding and each layer."""
    operations = [i for i in program.passes[0].instructions if i.op in QUEUE and QUEUE[i.op] is Engine.EXEC]
    marks = [n + 1 for n, instruction in enumerate(operations) if Flag.MARK in instruction.flags]
    drained = events["done"][:, Engine.DRAIN]
    return [int(np.argmax(drained >= mark)) for mark in marks]


def _modelled(program: Program, predicted: Prediction) -> list[LayerProfile]:
    """Layers of the model alone."""
    ends = np.cumsum([0, *predicted.layer_cycles])
    layers = []
    for name, cycles, times, (begin, end) in zip(
        layer_names(program.meta), predicted.layer_cycles, predicted.layers, pairwise(ends), strict=True
    ):
        unit = dict.fromkeys(Engine, 0.0)
        for piece in predicted.timeline:
            inside = min(piece.end, end) - max(piece.start, begin)
            if inside > 0 and piece.end > piece.start:
                unit[piece.engine] += piece.busy * inside / (piece.end - piece.start)
        waits = [times.weights + times.instructions, times.data, times.draining]
        busy = min(float(cycles), times.busy[Engine.EXEC])
        # operations do not begin and end with their layer
        scale = (cycles - busy) / max(sum(waits), 1e-9)
        weights, data, draining = (wait * scale for wait in waits)
        if not weights + data + draining:
            busy = float(cycles)
        layers.append(
            LayerProfile(
                name,
                cycles,
                cycles,
                busy,
                weights,
                data,
                draining,
                unit[Engine.LOAD],
                min(times.load_wait, cycles - unit[Engine.LOAD]),
                unit[Engine.DRAIN],
                unit[Engine.NORM],
                times.softmax,
                unit[Engine.SELECT],
                times.macs,
                8 * times.words,
            )
        )
    return layers


def _measured(
    modelled: list[LayerProfile],
    predicted: Prediction,
    result: Result,
    counters: list[dict[str, int]],
    config: HardwareConfig,
    memory: Memory,
) -> list[LayerProfile]:
    """Layers from the RTL's counters."""
    layers = []
    for layer, cycles, times, fires, counted in zip(
        modelled, result.layer_cycles, predicted.layers, result.layer_fires, counters, strict=True
    ):
        busy = min(counted["exec_fire"], cycles)
        draining = min(counted["wait_drain"], cycles - busy)
        rest = cycles - busy - draining
        weights = times.weights + times.instructions
        weights = rest * weights / max(weights + times.data, 1e-9)
        layers.append(
            replace(
                layer,
                cycles=cycles,
                busy=busy,
                weights=weights,
                data=rest - weights,
                draining=draining,
                load=min(counted["axi_beats"] / memory.words_per_cycle(config.port_bits), cycles),
                load_wait=counted["load_wait"],
                drain=counted["drain_busy"],
                norm=counted["norm_busy"],
                softmax=counted["softmax_busy"],
                select=counted["select_busy"],
                macs=float(fires * config.lanes),
            )
        )
    return layers


def _completions(events: np.ndarray) -> dict[tuple[Engine, int], int]:
    """Cycle in which the RTL completed an engine's n-th operation."""
    cycles = events["counters"][:, _COUNTER["cycles"]]
    done = {engine: np.maximum.accumulate(events["done"][:, engine]) for engine in Engine}
    return {
        (engine, number): int(cycles[np.searchsorted(count, number, side="right")])
        for engine, count in done.items()
        for number in range(count[-1])
    }


def _in_order(timeline: list[Slice], completions: dict[tuple[Engine, int], int], total: int) -> list[Slice]:
    """Whole cycles, ends as completed (if known), and within an engine no overlap."""
    pieces = []
    free = dict.fromkeys(Engine, 0)
    for piece in sorted(timeline, key=lambda s: (s.engine, s.number)):
        end = min(total, completions.get((piece.engine, piece.number), round(piece.end)))
        end = max(end, free[piece.engine])
        start = min(end, max(free[piece.engine], end - round(piece.end - piece.start)))
        free[piece.engine] = end
        pieces.append(replace(piece, start=start, end=end))
    return pieces


# -- files --------------------------------------------------------------------------------------


def trace(found: Profile) -> dict[str, Any]:
    """The Chrome trace, for ui.perfetto.dev or chrome://tracing, to be written as JSON.

    It has one track per engine, and one of layers; times are cycles over the configuration's clock.
    """
    process = {"name": f"{found.network} on {found.config.name}"}
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 0, "args": process}]
    for track, name in enumerate(["layers", *TRACKS.values()]):
        for key, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": track})):
            events.append({"ph": "M", "name": key, "pid": 0, "tid": track, "args": args})

    def add(name: str, track: int, start: int, end: int, **args: Any) -> None:
        at, until = (round(1e3 * cycle / found.config.clock_mhz) for cycle in (start, end))  # ns
        # a little more than whole ns, which Perfetto rounds down to: operations in a row must not overlap
        span = {key: (ns + 0.1) / 1e3 for key, ns in (("ts", at), ("dur", until - at))}
        args = {"start": start, "cycles": end - start, **args}
        events.append({"ph": "X", "name": name, "pid": 0, "tid": track, **span, "args": args})

    add("image", 0, 0, found.total, source=found.source)
    ends = np.cumsum([0, *(layer.cycles for layer in found.layers)]).tolist()
    for layer, (start, end) in zip(found.layers, pairwise(ends), strict=True):
        name = f"layer {layer.name}" if layer.name.isdigit() else layer.name
        waits = {key: round(getattr(layer, key)) for key in ("busy", "weights", "data", "draining")}
        add(name, 0, start, end, predicted=layer.predicted, **waits)
    tracks = {engine: number for number, engine in enumerate(TRACKS, 1)}
    for piece in found.timeline:
        args = {"operation": piece.number, "busy": round(piece.busy)}
        layer_name = found.layers[piece.layer + 1].name
        add(piece.name, tracks[piece.engine], int(piece.start), int(piece.end), layer=layer_name, **args)
    other = {
        "times": "cycles at the core's clock",
        "clock_mhz": found.config.clock_mhz,
        "memory": str(found.memory),
        "source": found.source,
        "cycles": found.total,
    }
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


#: of operations: as far from each other as eleven can be for readers with any kind of colour blindness
COLOURS = {
    OperationKind.EMBEDDING: "#777777",
    OperationKind.QUERY: "#1136a6",
    OperationKind.KEY: "#7f0cf2",
    OperationKind.VALUE: "#bf7cbf",
    OperationKind.ATTENTION: "#f27f0c",
    OperationKind.SELECT: "#a61111",
    OperationKind.PROJECTION: "#11a65b",
    OperationKind.FFN1: "#97f279",
    OperationKind.FFN2: "#660f66",
    OperationKind.HEAD: "#222222",
    OperationKind.NORM: "#b8b8b8",
}
WAITS = {
    "busy": ("multiplies", plots.BLUE),
    "weights": ("waits for weights", plots.VERMILION),
    "data": ("waits for data", "#f2d40c"),
    "draining": ("waits for the drain", "#a8a8a8"),
}


def plot(found: Profile) -> Figure:
    """A picture: timeline, where the array's cycles go, roofline; `RowvitError` without matplotlib."""
    figure = plots.figure(16, 10)
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.1], width_ratios=[1.15, 1])
    milliseconds = found.total / found.config.clock_mhz / 1e3
    figure.suptitle(
        f"{found.network} on {found.config.name}: {found.total:,} cycles ({found.source}),"
        f" {milliseconds:.2f} ms at {found.config.clock_text}; {found.memory}"
    )
    _plot_timeline(figure.add_subplot(grid[0, :]), found)
    _plot_array(figure.add_subplot(grid[1, 0]), found)
    _plot_roofline(figure.add_subplot(grid[1, 1]), found)
    figure.draw_without_rendering()  # after which everything has its place
    _label_roofline(figure.axes[-1], found)
    return figure


def _plot_timeline(axes: Any, found: Profile) -> None:
    from matplotlib.patches import Patch

    rows = list(TRACKS)[::-1]
    used = set()
    for height, engine in enumerate(rows):
        by_color: dict[str, list[tuple[float, float]]] = {}
        for piece in found.timeline:
            if piece.engine is engine and piece.end > piece.start:
                kind = piece.operation.kind
                kind = OperationKind.EMBEDDING if kind is OperationKind.INPUT else kind
                used.add(kind)
                color = COLOURS.get(kind, plots.GREY)
                by_color.setdefault(color, []).append((piece.start / 1e3, (piece.end - piece.start) / 1e3))
        for color, spans in by_color.items():
            axes.broken_barh(spans, (height - 0.4, 0.8), facecolors=color, edgecolors="white", linewidth=0.15)
    edges = np.cumsum([0, *(layer.cycles for layer in found.layers)]) / 1e3
    for layer, (start, end) in zip(found.layers, pairwise(edges), strict=True):
        axes.axvline(end, color="black", linewidth=0.6)
        if end - start > 0.02 * edges[-1]:
            axes.text((start + end) / 2, len(rows) - 0.45, layer.name, ha="center", va="bottom", fontsize=9)
        elif layer is found.layers[-1]:  # there is room to the right
            axes.text(end, len(rows) - 0.45, f" {layer.name}", va="bottom", fontsize=9)
    axes.set_yticks(range(len(rows)), [TRACKS[engine] for engine in rows])
    axes.set(xlabel="thousand cycles", xlim=(0, edges[-1]), ylim=(-0.6, len(rows) - 0.5))
    axes.set_title("operations by engine; vertical lines: ends of layers", fontsize=10, pad=18)
    handles = [Patch(color=color, label=kind.value) for kind, color in COLOURS.items() if kind in used]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)


def _plot_array(axes: Any, found: Profile) -> None:
    names = [layer.name for layer in found.layers]
    below = np.zeros(len(names))
    for key, (label, color) in WAITS.items():
        cycles = np.array([getattr(layer, key) for layer in found.layers]) / 1e3
        axes.bar(names, cycles, bottom=below, color=color, label=label)
        below += cycles
    if found.result is not None:
        predicted = [layer.predicted / 1e3 for layer in found.layers]
        axes.plot(names, predicted, "_", color="black", markersize=14, label="cycle model")
    axes.set(xlabel="layer", ylabel="thousand cycles")
    axes.set_title("what the array does", fontsize=10, pad=26)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 5}
    axes.legend(**above, fontsize=9, frameon=False, handlelength=1.2, columnspacing=1.2)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_roofline(axes: Any, found: Profile) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    rate, peak = 8 * found.memory.words_per_cycle(found.config.port_bits), found.config.macs_per_cycle
    intensity, speed = _in_roofline(found).T
    ends = min(intensity.min(), peak / rate) / 2, max(intensity.max(), peak / rate) * 2
    x = np.geomspace(*ends, 200)
    axes.plot(x, np.minimum(peak, rate * x), color="black", linewidth=1.2)
    axes.scatter(intensity, speed, color=plots.BLUE, zorder=3)
    low = min(speed.min(), rate * ends[0]) / 1.5
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(low, peak * 1.6))
    axes.set(xlabel="MAC per byte loaded", ylabel="MAC per cycle")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    title = f"roofline of every layer: memory {rate:.3g} bytes per cycle, array {peak} MAC per cycle"
    axes.set_title(f"{title}\nweights of a layer may be loaded during the one before", fontsize=10)
    axes.grid(True, linewidth=0.3, alpha=0.5)


def _in_roofline(found: Profile) -> np.ndarray:
    """MACs per byte and per cycle [layer, 2] of the layers that load and multiply."""
    layers = [layer for layer in found.layers if layer.bytes and layer.macs]
    return np.array([[layer.macs / layer.bytes, layer.macs / layer.cycles] for layer in layers])


def _label_roofline(axes: Any, found: Profile) -> None:
    """Each layer's name beside its dot, where it covers least of other names, dots and the frame."""
    from matplotlib.transforms import Bbox

    names = [layer.name for layer in found.layers if layer.bytes and layer.macs]
    places = _in_roofline(found)
    # layers of one size lie on one point: they share a label
    labels: dict[tuple[float, float], list[str]] = {}
    for name, (x, y) in zip(names, places.tolist(), strict=True):
        near = (p for p in labels if np.abs(np.log(np.divide(p, (x, y)))).max() < 0.15)
        labels.setdefault(next(near, (x, y)), []).append(name)
    dots = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(places)]
    taken = [*dots]
    for place, some in labels.items():
        consecutive = some[0].isdigit() and some == [str(int(some[0]) + i) for i in range(len(some))]
        text = f"{some[0]} to {some[-1]}" if consecutive and len(some) > 2 else ", ".join(some)
        label = axes.annotate(text, place, xytext=(0, 0), textcoords="offset points", fontsize=9)
        costs = []
        for across, up, align in _BESIDE:
            label.set(position=(across, up), ha=align)
            box = label.get_window_extent()
            covered = sum(_shared(box, other) for other in taken)
            costs.append(covered + box.width * box.height - _shared(box, axes.bbox))
        across, up, align = _BESIDE[int(np.argmin(costs))]
        label.set(position=(across, up), ha=align)
        taken.append(label.get_window_extent())


#: places of a label from its dot, in points, the best first
_BESIDE = [
    *((7.0, -11.0, "left"), (7.0, 5.0, "left"), (-7.0, 5.0, "right"), (-7.0, -11.0, "right")),
    *((0.0, 9.0, "center"), (0.0, -16.0, "center"), (9.0, 17.0, "left"), (-9.0, 17.0, "right")),
    *((9.0, -23.0, "left"), (-9.0, -23.0, "right")),
]


def _shared(one: Any, other: Any) -> float:
    """The area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)
