# SPDX-License-Identifier: Apache-2.0
"""How long an image takes, how many a second, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rowvit.target import Result, Target

PHASES = ("pack", "run", "send", "unpack")


def measure(
    target: Target,
    images: np.ndarray,
    batch: int,
    warm_up: int = 1,
    clock_mhz: float | None = None,
    simulated: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Measure latency, one image after the other, and then throughput, in batches.

    Parameters
    ----------
    target : Target
        With its network loaded.
    images : uint8 array [N, S, S, 3]
    batch : int
        Images per start of the core, for throughput; the next image arrives while one computes.
    warm_up : int
        Images before each of the two that are not counted.
    clock_mhz : float, optional
        Of the core; by default the configuration's.
    simulated : bool
        Latency and throughput are then cycles x clock, since the host's clock would time the simulator.
    progress : callable
        Gets the number of images done, at times.

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
    count = len(images)
    single: list[Result] = []
    first_ones = images[np.arange(warm_up) % count]
    if warm_up:
        target(first_ones)
    for i in range(count):
        single += target(images[i : i + 1])
        progress(i + 1)
    if warm_up:
        target(first_ones, batch)
    together: list[Result] = []
    begin = time.monotonic()
    for first in range(0, count, batch):
        together += target(images[first : first + batch], batch)
        progress(count + first + batch)
    seconds = (time.monotonic() - begin) / count

    host = np.array([result.seconds for result in single]) * 1e3
    latency: dict[str, Any] = {"images": count, "host_ms": _statistics(host), "values_ms": host.tolist()}
    pipelined: dict[str, Any] = {"images": count, "batch": batch, "seconds_per_image": seconds}
    counted = single[0].cycles is not None
    if counted:
        device = np.array([result.cycles for result in single]) / clock
        cycles = sum(result.cycles for result in together) / count
        latency["device_ms"] = _statistics(device)
        pipelined["cycles_per_image"] = cycles
        if simulated:
            latency["values_ms"] = device.tolist()
            seconds = cycles / clock / 1e3
    dense, executed = (
        float(np.mean([getattr(result, name) for result in single]))
        for name in ("macs_dense", "macs_executed")
    )
    return {
        "images_per_second": 1 / seconds,
        "latency": latency,
        "phases_ms": {"latency": _phases(single, clock), "pipelined": _phases(together, clock)},
        "pipelined": pipelined,
        "gops": {"dense_equivalent": 2e-9 * dense / seconds, "executed": 2e-9 * executed / seconds},
        "finn": _finn(target.meta, together, seconds, clock, simulated),
        "counters": _counters(single) if counted else {"none": "the integer reference has no counters"},
        "layers": _layers(single, target) if counted else {"none": "the integer reference has no cycles"},
    }


def _statistics(values: np.ndarray) -> dict[str, float]:
    at = dict(
        zip(("min", "median", "p90", "p99", "max"), np.quantile(values, [0, 0.5, 0.9, 0.99, 1]), strict=True)
    )
    return {"mean": float(values.mean()), **{name: float(value) for name, value in at.items()}}


def _phases(results: list[Result], clock: float) -> dict[str, float]:
    """Medians per image in ms: the driver's times, and the core's from its cycle counter."""
    found = {}
    for name in PHASES:
        if all(name in result.timing for result in results):
            found[name] = float(np.median([result.timing[name] / result.batch for result in results])) * 1e3
    if results[0].cycles is not None:
        found["compute"] = float(np.median([result.cycles for result in results])) / clock
    return found


def _counters(results: list[Result]) -> dict[str, float]:
    """Means per image."""
    return {name: float(np.mean([r.counters[name] for r in results])) for name in results[0].counters}


def _layers(results: list[Result], target: Target) -> list[dict[str, Any]]:
    """Medians of every layer; ``busy`` is the array's share of the lane-group cycles that it has."""
    config = target.config
    names = ["embed", *map(str, range(target.meta["architecture"]["depth"])), "head"]
    cycles, fires = (
        np.median([getattr(result, name) for result in results], axis=0)
        for name in ("layer_cycles", "layer_fires")
    )
    return [
        {
            "name": name,
            "cycles": float(c),
            "fires": float(f),
            "busy": float(f / (c * config.rows * config.groups)) if c else 0.0,
        }
        for name, c, f in zip(names, cycles, fires, strict=True)
    ]


def _finn(
    meta: dict, results: list[Result], seconds: float, clock: float, simulated: bool
) -> dict[str, float]:
    """The figures that FINN's ``throughput_test`` also gives, under its names, for one batch.

    FINN's copies to and from the device are part of packing and unpacking here; its folding is not needed.
    """
    batch = results[0].batch
    found: dict[str, float] = {
        "runtime[ms]": seconds * batch * 1e3,
        "throughput[images/s]": 1 / seconds,
        "batch_size": batch,
    }
    if "input" in meta:
        words = results[0].counters["axi_beats"] / batch
        sent = results[0].counters["send_words"] / batch
        found["DRAM_in_bandwidth[MB/s]"] = meta["input"]["bytes"] / seconds / 1e6
        found["DRAM_out_bandwidth[MB/s]"] = 8 * sent / seconds / 1e6
        found["DRAM_extw_weights_bandwidth[MB/s]"] = 8 * words / seconds / 1e6
        found["fclk[mhz]"] = clock / 1e3
        found["pack_input[ms]"] = results[0].timing["pack"] * 1e3
        found["unpack_output[ms]"] = results[0].timing["unpack"] * 1e3
    return found
