# SPDX-License-Identifier: Apache-2.0
"""How long an image takes, how many there are per second, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rowvit.formats.description import layer_names, square_side
from rowvit.hardware.host import host_work
from rowvit.hardware.isa import COUNTERS
from rowvit.hardware.memory import Memory
from rowvit.measure import result as results
from rowvit.measure.result import differences
from rowvit.measure.speed.profile import watched
from rowvit.measure.temperature import temperatures, thermometer
from rowvit.processors import processors

if TYPE_CHECKING:
    from pathlib import Path

    from rowvit.hardware.config import HardwareConfig
    from rowvit.targets.session import ImageSet, Session
    from rowvit.targets.target import Result, Target

#: gets the number of images done
Progress = Callable[[int], None]

#: what times are, by target
BASIS = {
    "board": "the host's monotonic clock, packing and unpacking included",
    "sim": "simulated cycles at the core's clock, from the core's start to the last word of its answer",
    "golden": "the host's monotonic clock",
}
_CYCLES, _WORDS = map([name for name, _ in COUNTERS].index, ("cycles", "recv_words"))


def document(
    session: Session, images: ImageSet, batch: int, warm_up: int = 1, progress: Progress = lambda done: None
) -> dict[str, Any]:
    """Measure, and describe it: the result that ``rowvit bench`` writes, without a baseline.

    Parameters
    ----------
    session : Session
    images : ImageSet
        From `Session.choose`.
    batch, warm_up, progress
        As of `measure`.

    Raises
    ------
    RowvitError
        The target cannot be opened, or the accelerator failed.
    """
    batch = min(batch, len(images.pixels))
    source, read = thermometer(session.target_name)
    found = results.describe("throughput", session, images)
    degrees = [read()] if read else []
    figures = measure(
        session.target, session.target_name, images.pixels, batch, warm_up, found["clock"]["mhz"], progress
    )
    degrees += [read()] if read else []
    figures["files"] = (
        from_files(
            session.target,
            session.target_name,
            images.files,
            batch,
            lambda done: progress(2 * len(images.pixels) + done),
        )
        if images.files
        else {"none": "random pixels come from no files"}
    )
    figures["limit"] = limit(figures)
    figures["host"] = _board_host(figures, session)
    figures["baseline"] = {"none": "not asked for (--baseline)"}
    if "memory" in session.options:
        figures["memory"] = str(session.options["memory"])
    simulated = session.target_name == "sim"
    checked = {key: value for key, value in session.options.items() if key == "check_every"}
    return found | {
        "protocol": {
            "warm_up": f"{warm_up} image{'s' * (warm_up != 1)} before latency, and before throughput",
            "repetitions": len(images.pixels),
            "batch": batch,
            **checked,
        },
        "instrument": {
            "name": "cycle counter of the core" if simulated else "the host's monotonic clock",
            "measures": figures["basis"],
            "sampling_hz": {"none": "every image is timed"},
        },
        "idle": {"none": "no power is measured"},
        "temperature": temperatures(source, degrees, session.target_name),
        "throughput": figures,
    }


def measure(
    target: Target,
    name: str,
    images: Sequence[np.ndarray],
    batch: int,
    warm_up: int = 1,
    clock_mhz: float | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Any]:
    """Measure latency, one image after the other, and then throughput, in batches.

    Parameters
    ----------
    target : Target
        With its network loaded.
    name : str
        "golden", "sim" or "board". For "sim", times are cycles at its clock: the host's clock would time the
        simulator.
    images : sequence of uint8 arrays [S, S, 3]
    batch : int
        Images per start of the core, for throughput; what is left of ``images`` behind the last whole batch
        is not part of it. The next batch is made ready while one computes.
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
    first_ones = [images[i % count] for i in range(warm_up)]
    if warm_up:
        target(first_ones)
    begin = time.monotonic()
    single: list[Result] = []
    layers: list[list[dict[str, int]]] = []  # counters of every layer of every image
    received: list[int] = []  # cycles
    for i in range(count):
        if simulated:
            result, counters, arrival = _watched(target, images[i])
            received.append(arrival)
        else:
            (result,) = target([images[i]])
            counters = _marked(result)
        single.append(result)
        layers.append(counters)
        progress(i + 1)
    spent = time.monotonic() - begin
    if warm_up:
        target(first_ones, batch)
    together: list[Result] = []
    whole = max(count // batch, 1) * batch
    start = time.monotonic()
    for result in target.stream(images[:whole], batch):
        together.append(result)
        progress(count + len(together))
    end = time.monotonic()
    progress(2 * count)

    if simulated:
        latency = _cycles(single) / clock
        per_image = float(_cycles(together).sum()) / len(together) / clock
    else:
        latency = np.array([result.seconds for result in single]) * 1e3
        per_image = (end - start) / len(together) * 1e3
    dense, executed = (
        float(np.mean([getattr(result, key) for result in single])) for key in ("macs_dense", "macs_executed")
    )
    gops = {"dense_equivalent": 2e-6 * dense / per_image, "executed": 2e-6 * executed / per_image}
    meta = target.meta
    assert meta is not None  # the network is loaded
    found: dict[str, Any] = {
        "basis": BASIS[name],
        "images_per_second": 1e3 / per_image,
        "latency_ms": _statistics(latency),
        "pipelined": {"images": len(together), "batch": batch, "ms_per_image": per_image},
        "phases": {
            "latency": _phases(single, clock, simulated, received),
            "pipelined": _phases(together, clock, simulated),
        },
        "gops": gops,
        "finn": _finn(meta, together, per_image, clock),
        "counters": {"none": "the integer reference has no counters"},
        "layers": {"none": "the integer reference has no cycles"},
    }
    if single[0].cycles is not None:
        gops["peak"] = 2e-6 * target.config.macs_per_cycle * clock
        found["counters"] = {
            name: float(np.mean([r.counters[name] for r in single])) for name in single[0].counters
        }
        found["layers"] = _layers(layers, meta, target.config)
    if simulated:
        cycles = int(_cycles(single).sum() + _cycles(together).sum())
        found["simulator_khz"] = cycles / (spent + end - start) / 1e3
    return found


def from_files(
    target: Target, name: str, files: Sequence[Path], batch: int, progress: Progress = lambda done: None
) -> dict[str, Any]:
    """Measure throughput from image files: decoding alone, and with the target at work beside it.

    Parameters
    ----------
    target, name, batch
        As of `measure`. A simulator is not run, as it takes the processors that decode.
    files : sequence of Path
        One per image; files that come again are decoded again.
    progress : callable
        Gets the number of images done: N on sim, else 2 N in all.

    Returns
    -------
    dict
        The part ``files`` of a result; times in ms are per image.

    Raises
    ------
    RowvitError
        A file cannot be decoded, or the accelerator failed.
    """
    count = len(files)
    start = time.monotonic()
    for done, _ in enumerate(target.prepared(files, 2 * batch), 1):
        progress(done)
    decoded = time.monotonic() - start
    found: dict[str, Any] = {
        "images": count,
        "decoding": {"ms_per_image": 1e3 * decoded / count, "threads": processors()},
        "pipelined": {"none": "the simulator takes the processors that decode"},
    }
    if name != "sim":
        start = time.monotonic()
        for done, _ in enumerate(target.stream(files, batch), 1):
            progress(count + done)
        per_image = (time.monotonic() - start) / count
        found["pipelined"] = {"ms_per_image": 1e3 * per_image, "images_per_second": 1 / per_image}
    return found


def limit(figures: dict[str, Any]) -> dict[str, Any]:
    """Which of host, DMA and core takes longest for an image, and so bounds the throughput of batches.

    Host is packing and unpacking, without what Python and the driver do around them; from files also decoding
    by all threads. DMA is that of one image alone,
    from the core's start on; with more of them it waits for the core. On sim the core is simulated, and the
    host is the machine that simulates.
    """
    if not figures["phases"]["latency"]:
        return {"none": "host and core are one machine"}
    alone, together = ({p["name"]: p["ms"] for p in figures["phases"][k]} for k in ("latency", "pipelined"))
    stages = {
        "host": together["packing"] + together["unpacking"],
        "DMA": alone["DMA in"],
        "core": together["compute"],
    }
    found: dict[str, Any] = {"ms": stages, "pixels": max(stages, key=stages.__getitem__)}
    if "decoding" in figures["files"]:
        ms = stages["host"] + figures["files"]["decoding"]["ms_per_image"]
        found["host_from_files_ms"] = ms
        found["files"] = "host" if ms > max(stages.values()) else found["pixels"]
    return found


def _board_host(figures: dict[str, Any], session: Session) -> dict[str, Any]:
    """What the processor of the configuration's board takes for an image, beside this core."""
    if "ms" not in figures["limit"]:
        return {"none": "the integer reference has no cycles"}
    counters, memory = figures["counters"], session.options.get("memory", Memory())
    loads = counters["axi_beats"] / memory.words_per_cycle(session.config.port_bits)
    side, core = square_side(session.meta["architecture"]), figures["limit"]["ms"]["core"]
    return host_work(session.config, side, core, "memory" if loads > counters["exec_fire"] else "fabric")


def disagreements(document: dict[str, Any]) -> list[str]:
    """Figures of a result that its own values do not give; a phrase for each."""
    figures, protocol = document["throughput"], document["protocol"]
    values, pipelined = figures["latency_ms"]["values"], figures["pipelined"]
    per_image = pipelined["ms_per_image"]
    problems = []
    if (
        not len(values)
        == protocol["repetitions"]
        >= pipelined["images"]
        > protocol["repetitions"] - protocol["batch"]
    ):
        problems.append(
            f"protocol.repetitions is {protocol['repetitions']}, of {len(values)} latencies and"
            f" {pipelined['images']} images in batches"
        )
    batch = figures["finn"].get("batch_size", pipelined["batch"])
    again: dict[str, Any] = {
        "latency_ms": _statistics(np.array(values)),
        "images_per_second": 1e3 / per_image,
        "finn": {"runtime[ms]": per_image * batch, "throughput[images/s]": 1e3 / per_image},
    }
    files = figures.get("files", {})
    if "images_per_second" in files.get("pipelined", {}):
        again["files"] = {"pipelined": {"images_per_second": 1e3 / files["pipelined"]["ms_per_image"]}}
    problems += differences(figures, again, "throughput")
    if isinstance(figures["baseline"], list):
        for number, speed in enumerate(figures["baseline"]):
            rate = {"images_per_second": speed["batch"] / speed["median_s"]}
            problems += differences(speed, rate, f"throughput.baseline.{number}")
            if not speed["fastest_s"] <= speed["median_s"] <= speed["p90_s"]:
                problems.append(f"throughput.baseline.{number}: fastest, median and p90 do not ascend")
    if "peak" in figures["gops"] and figures["gops"]["executed"] > figures["gops"]["peak"] * (1 + 1e-6):
        problems.append("throughput.gops.executed is above the peak of the configuration at this clock")
    compute = [phase["ms"] for phase in figures["phases"]["pipelined"] if phase["name"] == "compute"]
    if compute and per_image < compute[0] * 0.5:
        problems.append(
            f"throughput.pipelined.ms_per_image is {per_image:g}, but the core alone takes {compute[0]:g}"
        )
    return problems


def _cycles(results: Sequence[Result]) -> np.ndarray:
    return np.array([result.cycles for result in results], np.int64)


def _watched(target: Target, image: np.ndarray) -> tuple[Result, list[dict[str, int]], int]:
    """One image [S, S, 3] in simulation: result, counters of every layer, and the cycle it had arrived by.

    The simulator has all counters when a layer ends, not only those in the core's answer. The image had
    arrived when the receive operation of its last word completed.
    """
    result, events, counted = watched(target, image)
    both = [{**more, **own} for more, own in zip(counted, _marked(result), strict=True)]
    words, cycles = events["counters"][:, [_WORDS, _CYCLES]].T
    # a batch of one also completes the receive of the image that does not come
    return result, both, int(cycles[np.flatnonzero(words != words[-1])[-1] + 1])


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

    "DMA in" overlaps with "compute": the core loads weights before it needs the input.
    """
    if not all(result.timing for result in results):
        return []

    def host(key: str) -> float:
        return float(np.median([result.timing[key] / result.batch for result in results])) * 1e3

    compute = float(np.median(_cycles(results))) / clock
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


def _marked(result: Result) -> list[dict[str, int]]:
    """The counters of every layer that the core's answer carries."""
    return [
        {"cycles": cycles, "fires": fires}
        for cycles, fires in zip(result.layer_cycles, result.layer_fires, strict=True)
    ]


def _layers(images: list[list[dict[str, int]]], meta: dict, config: HardwareConfig) -> list[dict[str, Any]]:
    """Medians of every layer; ``busy`` is the share of the array's lane-group cycles that are used."""
    groups = config.rows * config.groups
    found = []
    for name, ones in zip(layer_names(meta), zip(*images, strict=True), strict=True):
        counters = {key: float(np.median([one[key] for one in ones])) for key in ones[0]}
        busy = counters["fires"] / (counters["cycles"] * groups) if counters["cycles"] else 0.0
        found.append({"name": name, "busy": busy, **counters})
    return found


def _finn(meta: dict, results: list[Result], per_image: float, clock: float) -> dict[str, float]:
    """The figures that FINN's ``throughput_test`` also gives, under its names, for one batch.

    Packing and unpacking include what FINN counts as copies to and from the device; there is no folding.
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
