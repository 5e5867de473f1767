# SPDX-License-Identifier: Apache-2.0
"""How long an image takes, how many a second, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.hardware.isa import COUNTERS
from rowvit.measure.profile import layer_counters

if TYPE_CHECKING:
    from rowvit.targets.target import Result, Target

#: what times are, by target
BASIS = {
    "board": "the host's monotonic clock, packing and unpacking included",
    "sim": "simulated cycles x clock, from the core's start to the last word of its answer",
    "golden": "the host's monotonic clock",
}
_CYCLES, _WORDS = map([name for name, _ in COUNTERS].index, ("cycles", "recv_words"))


def measure(
    target: Target,
    name: str,
    images: np.ndarray,
    batch: int,
    warm_up: int = 1,
    clock_mhz: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure latency, one image after the other, and then throughput, in batches.

    Parameters
    ----------
    target : Target
        With its network loaded.
    name : str
        "golden", "sim" or "board". Of "sim", times are cycles x clock: the host's clock would time the
        simulator.
    images : uint8 array [N, S, S, 3]
    batch : int
        Images per start of the core, for throughput. The next batch is made ready while one computes.
    warm_up : int
        Images before each of the two that are not counted.
    clock_mhz : float, optional
        Of the core; by default the configuration's.
    progress : callable
        Gets the number of images done, of 2 N in all.

    Returns
    -------
    dict
        The part ``throughput`` of a result, without ``baseline``; times in ms are per image.

    Raises
    ------
    RowvitError
        The accelerator failed.
    """
    clock = (clock_mhz or target.config.clock_mhz) * 1e3  # cycles per ms
    simulated, count = name == "sim", len(images)
    begin = time.monotonic()
    first_ones = images[np.arange(warm_up) % count]
    if warm_up:
        target(first_ones)
    single: list[Result] = []
    layers: list[list[dict[str, int]]] = []  # counters of every layer of every image
    received: list[int] = []  # cycles
    for i in range(count):
        if simulated:
            target.device.watch()
        single += target(images[i : i + 1])
        layers.append(_marked(single[-1]))
        if simulated:  # has all counters when a layer ends, not only those in the core's answer
            events = target.device.events()
            counted = layer_counters(target.program, events, single[-1])
            layers[-1] = [{**more, **own} for more, own in zip(counted, layers[-1], strict=True)]
            received.append(_received(events))
        progress(i + 1)
    if warm_up:
        target(first_ones, batch)
    together: list[Result] = []
    start = time.monotonic()
    for result in target.stream(images, batch):
        together.append(result)
        progress(count + len(together))
    end = time.monotonic()

    counted = single[0].cycles is not None
    if simulated:
        latency = np.array([result.cycles for result in single]) / clock
        per_image = sum(result.cycles for result in together) / count / clock
    else:
        latency = np.array([result.seconds for result in single]) * 1e3
        per_image = (end - start) / count * 1e3
    dense, executed = (
        float(np.mean([getattr(result, key) for result in single])) for key in ("macs_dense", "macs_executed")
    )
    found = {
        "basis": BASIS[name],
        "images_per_second": 1e3 / per_image,
        "latency_ms": _statistics(latency),
        "pipelined": {"images": count, "batch": batch, "ms_per_image": per_image},
        "phases": {
            "latency": _phases(single, clock, simulated, received),
            "pipelined": _phases(together, clock, simulated),
        },
        "gops": {
            "dense_equivalent": 2e-6 * dense / per_image,
            "executed": 2e-6 * executed / per_image,
        },
        "finn": _finn(target.meta, together, per_image, clock, simulated),
        "counters": _counters(single) if counted else {"none": "the integer reference has no counters"},
        "layers": _layers(layers, target) if counted else {"none": "the integer reference has no cycles"},
    }
    if counted:
        found["gops"]["peak"] = 2e-6 * target.config.macs_per_cycle * clock
    if simulated:
        found["simulator_khz"] = sum(r.cycles for r in (*single, *together)) / (end - begin) / 1e3
    return found


def _received(events: np.ndarray) -> int:
    """Cycles until the input was there: until the receive operation of the last word completed."""
    words, cycles = events["counters"][:, [_WORDS, _CYCLES]].T
    # a batch of one also completes the receive of the image that does not come
    return int(cycles[np.flatnonzero(words != words[-1])[-1] + 1])


def _statistics(values: np.ndarray) -> dict[str, Any]:
    quantiles = np.quantile(values, [0, 0.5, 0.9, 0.99, 1]).tolist()
    return {
        **dict(zip(("min", "median", "p90", "p99", "max"), quantiles, strict=True)),
        "mean": float(values.mean()),
        "values": values.tolist(),
    }


def _phases(
    results: list[Result], clock: float, simulated: bool, received: list[int] | None = None
) -> list[dict[str, Any]]:
    """Median ms per image of every phase, and by which clock; in the order in which they end.

    DMA in runs beside compute: the core loads weights before it needs the input.
    """
    if not all(result.timing for result in results):
        return []

    def host(key: str) -> float:
        return float(np.median([result.timing[key] / result.batch for result in results])) * 1e3

    compute = float(np.median([result.cycles for result in results])) / clock
    phases = [("packing", host("pack"), "host")]
    if received:
        phases.append(("DMA in", float(np.median(received)) / clock, "simulated"))
    elif not simulated:
        phases.append(("DMA in", host("send"), "host"))
    phases.append(("compute", compute, "simulated" if simulated else "core's counter"))
    if not simulated:  # a simulated DMA is done with the core's last word
        phases.append(("start, DMA out, waiting", max(host("run") - compute, 0.0), "host"))
    phases.append(("unpacking", host("unpack"), "host"))
    return [{"name": name, "ms": ms, "clock": which} for name, ms, which in phases]


def _counters(results: list[Result]) -> dict[str, float]:
    """Means per image."""
    return {name: float(np.mean([r.counters[name] for r in results])) for name in results[0].counters}


def _marked(result: Result) -> list[dict[str, int]]:
    """The counters of every layer that the core's answer carries."""
    return [
        {"cycles": cycles, "fires": fires}
        for cycles, fires in zip(result.layer_cycles, result.layer_fires, strict=True)
    ]


def _layers(images: list[list[dict[str, int]]], target: Target) -> list[dict[str, Any]]:
    """Medians of every layer; ``busy`` is the array's share of the lane-group cycles that it has."""
    groups = target.config.rows * target.config.groups
    found = []
    names = ["embed", *map(str, range(target.meta["architecture"]["depth"])), "head"]
    for name, ones in zip(names, zip(*images, strict=True), strict=True):
        counters = {key: float(np.median([one[key] for one in ones])) for key in ones[0]}
        busy = counters["fires"] / (counters["cycles"] * groups) if counters["cycles"] else 0.0
        found.append({"name": name, "busy": busy, **counters})
    return found


def _finn(
    meta: dict, results: list[Result], per_image: float, clock: float, simulated: bool
) -> dict[str, float]:
    """The figures that FINN's ``throughput_test`` also gives, under its names, for one batch.

    Packing and unpacking hold FINN's copies to and from the device; its folding is not needed.
    """
    batch = results[0].batch
    found: dict[str, float] = {
        "runtime[ms]": per_image * batch,
        "throughput[images/s]": 1e3 / per_image,
        "batch_size": batch,
    }
    if "input" in meta:  # a program
        per_second = 1e-3 / per_image  # bytes of an image -> MB/s
        counters = {name: results[0].counters[name] / batch for name in ("axi_beats", "send_words")}
        found["DRAM_in_bandwidth[MB/s]"] = meta["input"]["bytes"] * per_second
        found["DRAM_out_bandwidth[MB/s]"] = 8 * counters["send_words"] * per_second
        found["DRAM_extw_weights_bandwidth[MB/s]"] = 8 * counters["axi_beats"] * per_second
        found["fclk[mhz]"] = clock / 1e3
        found["pack_input[ms]"] = results[0].timing["pack"] * 1e3
        found["unpack_output[ms]"] = results[0].timing["unpack"] * 1e3
    return found
