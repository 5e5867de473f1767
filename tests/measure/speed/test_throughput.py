# SPDX-License-Identifier: Apache-2.0
"""Latency, throughput and phases on the simulated accelerator and the reference."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import rowvit
from rowvit.errors import RowvitError
from rowvit.hardware import isa
from rowvit.measure.speed.profile import layer_counters
from rowvit.measure.speed.throughput import from_files, limit, measure
from rowvit.targets.target import read_model

COUNTERS = [name for name, _ in isa.COUNTERS]

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def simulated(small):
    with rowvit.open("sim", config="tiny") as sim:
        sim.load(small["package"])
        singles = sim(IMAGES)
        batches = [*sim(IMAGES[:2], 2), *sim(IMAGES[2:4], 2), *sim(IMAGES[4:], 2)]
        done = []
        found = measure(sim, "sim", IMAGES, 2, 1, 200.0, done.append)
        assert done == list(range(1, 11))  # the fifth is in no batch
        as_board = measure(sim, "board", IMAGES, 2, 0, 200.0)
    return singles, batches, found, as_board


def test_simulated_times_are_cycles_times_clock(simulated):
    singles, batches, found, _ = simulated
    assert "simulated cycles at the core's clock" in found["basis"]
    expected = np.array([r.cycles for r in singles]) / 200e3  # ms at 200 MHz
    assert found["latency_ms"]["values"] == pytest.approx(expected, rel=2e-3)  # a cycle of jitter or two
    assert found["latency_ms"]["median"] == pytest.approx(np.median(expected), rel=2e-3)
    assert found["latency_ms"]["min"] == min(found["latency_ms"]["values"])
    assert found["latency_ms"]["max"] == max(found["latency_ms"]["values"])
    per_image = sum(r.cycles for r in batches[:4]) / 4 / 200e3  # of whole batches
    assert found["pipelined"]["images"] == 4
    assert found["pipelined"]["ms_per_image"] == pytest.approx(per_image, rel=2e-3)
    assert found["images_per_second"] == pytest.approx(1e3 / per_image, rel=2e-3)
    assert found["simulator_khz"] > 0


def test_operations_and_layers(simulated, small):
    singles, _, found, _ = simulated
    # multiplications of the dense network by hand: 37 tokens, 36 patches of 12 values
    dense = 36 * 12 * 32 + 2 * (4 * 37 * 32**2 + 2 * 37**2 * 32 + 2 * 37 * 32 * 48) + 32 * 5
    seconds = found["pipelined"]["ms_per_image"] * 1e-3
    assert read_model(str(small["package"])).meta["architecture"]["tokens"] == 37
    assert found["gops"]["dense_equivalent"] == pytest.approx(2 * dense / seconds / 1e9, rel=1e-6)
    assert 0 < found["gops"]["executed"] < found["gops"]["dense_equivalent"]
    assert found["gops"]["peak"] == pytest.approx(2 * 32 * 200e6 / 1e9)  # tiny: 2 x 1 x 16
    assert [layer["name"] for layer in found["layers"]] == ["embed", "0", "1", "head"]
    total = sum(layer["cycles"] for layer in found["layers"])
    assert total == pytest.approx(np.median([r.cycles for r in singles]), rel=0.01)
    assert all(0 <= layer["busy"] <= 1 for layer in found["layers"])
    for name in COUNTERS:
        total = sum(layer[name] for layer in found["layers"])
        assert total == pytest.approx(np.median([r.counters[name] for r in singles]), rel=0.05, abs=8), name
    assert found["counters"]["fires"] == pytest.approx(np.mean([r.counters["fires"] for r in singles]))


def test_layers_between_the_marks_of_the_core(small):
    """The simulator's counters agree with those in the core's answer, and not only in the first start."""
    with rowvit.open("sim", config="tiny") as sim:
        sim.load(small["package"])
        for image in IMAGES[:2]:
            sim.device.watch()
            (result,) = sim(image[None])
            layers = layer_counters(sim.program, sim.device.events(), result)
            assert [layer["cycles"] for layer in layers] == pytest.approx(result.layer_cycles, abs=3)
            assert [layer["fires"] for layer in layers] == pytest.approx(result.layer_fires, abs=4)
            for name in COUNTERS:
                assert sum(layer[name] for layer in layers) == result.counters[name]


def test_simulated_phases(simulated):
    _, _, found, _ = simulated
    phases = {p["name"]: p for p in found["phases"]["latency"]}
    assert list(phases) == ["packing", "DMA in", "compute", "unpacking"]
    assert [p["clock"] for p in phases.values()] == ["host", "simulated", "simulated", "host"]
    # 36 patches of 16 bytes at most a word of 8 a cycle, long before the end
    assert 72 / 200e3 <= phases["DMA in"]["ms"] < 0.2 * phases["compute"]["ms"]
    assert phases["compute"]["ms"] == pytest.approx(found["latency_ms"]["median"], rel=1e-6)
    assert [p["name"] for p in found["phases"]["pipelined"]] == ["packing", "compute", "unpacking"]


def test_phases_of_a_board_add_up_to_its_latency(simulated):
    """The same driver timed by the host's clock, as on a board."""
    _, _, _, found = simulated
    phases = {p["name"]: p["ms"] for p in found["phases"]["latency"]}
    assert list(phases) == ["packing", "DMA in", "compute", "start, DMA out, waiting", "unpacking"]
    parts = sum(ms for name, ms in phases.items() if name != "DMA in")  # which runs beside the others
    assert parts == pytest.approx(found["latency_ms"]["median"], rel=0.2)  # medians do not quite add up
    assert phases["DMA in"] < found["latency_ms"]["median"]
    assert {key for layer in found["layers"] for key in layer} == {"name", "busy", "cycles", "fires"}
    assert "monotonic clock" in found["basis"] and "simulator_khz" not in found
    assert found["images_per_second"] == pytest.approx(1e3 / found["pipelined"]["ms_per_image"])


def test_finn_names(simulated):
    _, batches, found, _ = simulated
    finn, per_image = found["finn"], found["pipelined"]["ms_per_image"] * 1e-3
    assert finn["throughput[images/s]"] == pytest.approx(1 / per_image)
    assert finn["runtime[ms]"] == pytest.approx(2e3 * per_image) and finn["batch_size"] == 2
    words = batches[0].counters["axi_beats"] / 2
    assert finn["DRAM_extw_weights_bandwidth[MB/s]"] == pytest.approx(8 * words / per_image / 1e6, rel=0.05)
    assert finn["DRAM_in_bandwidth[MB/s]"] == pytest.approx(36 * 16 / per_image / 1e6)
    assert finn["fclk[mhz]"] == 200.0
    assert {"DRAM_out_bandwidth[MB/s]", "pack_input[ms]", "unpack_output[ms]"} <= finn.keys()


def test_from_files(small, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, pixels in zip(files, IMAGES, strict=False):
        Image.fromarray(pixels).save(file)
    done: list[int] = []
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(small["package"])
        found = from_files(golden, "golden", files * 2, 4, done.append)
        assert done == list(range(1, 13)) and found["images"] == 6 and found["decoding"]["threads"] > 0
        assert found["decoding"]["ms_per_image"] > 0 < found["pipelined"]["ms_per_image"]
        rate = 1e3 / found["pipelined"]["ms_per_image"]
        assert found["pipelined"]["images_per_second"] == pytest.approx(rate)
        done.clear()
        assert "none" in from_files(golden, "sim", files, 4, done.append)["pipelined"]
        assert done == [1, 2, 3]
        files[1].write_text("no picture")
        with pytest.raises(RowvitError, match=r"1\.png: is no picture"):
            from_files(golden, "golden", files, 4)


@pytest.mark.parametrize(
    ("packing", "dma", "core", "decoding", "pixels", "files"),
    [
        (0.1, 0.2, 3.0, 1.0, "core", "core"),
        (0.1, 0.2, 3.0, 2.9, "core", "host"),  # decoding and packing together
        (0.1, 4.0, 3.0, 1.0, "DMA", "DMA"),
        (5.0, 4.0, 3.0, None, "host", None),
    ],
)
def test_the_limit_is_what_takes_longest(packing, dma, core, decoding, pixels, files):
    def phases(**ms):
        return [{"name": name.replace("_", " "), "ms": value, "clock": "host"} for name, value in ms.items()]

    figures = {
        "phases": {
            "latency": phases(packing=9.0, DMA_in=dma, compute=9.0, unpacking=9.0),
            "pipelined": phases(packing=packing, DMA_in=9.0, compute=core, unpacking=0.05),
        },
        "files": {"decoding": {"ms_per_image": decoding}} if decoding else {"none": "random pixels"},
    }
    found = limit(figures)
    assert (found["pixels"], found.get("files")) == (pixels, files)
    if decoding:
        assert found["host_from_files_ms"] == pytest.approx(packing + 0.05 + decoding)
    assert "none" in limit(figures | {"phases": {"latency": [], "pipelined": []}})


def test_the_reference_has_times_but_no_cycles(small):
    with rowvit.open("golden", config="tiny") as golden:
        golden.load(small["package"])
        found = measure(golden, "golden", IMAGES, 3)
    assert len(found["latency_ms"]["values"]) == 5 and found["images_per_second"] > 0
    assert found["phases"] == {"latency": [], "pipelined": []}
    assert "none" in found["counters"] and "none" in found["layers"] and "peak" not in found["gops"]
