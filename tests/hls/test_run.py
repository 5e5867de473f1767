# SPDX-License-Identifier: Apache-2.0
"""Frames of any size through driver, preprocessor and core, against the reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pynq import Device
from typer.testing import CliRunner
from waiting import HANG

import rowvit
from rowvit.cli import app
from rowvit.errors import RowvitError
from rowvit.hardware import config as configs
from rowvit.hardware.block_design import boards
from rowvit.overlay import RowvitOverlay
from rowvit.overlay.bitfile import Handoff
from rowvit.quant.synthetic import random_package
from rowvit.sim import hwh
from rowvit.sim.device import SimDevice
from rowvit.targets.diagnose import _Walk, diagnose
from rowvit.targets.driver import Accelerator, _Slot
from rowvit.targets.golden import Golden

TINY = configs.load("tiny")
SIZES = [(12, 12), (7, 30), (50, 41), (96, 100), (13, 12)]  # height, width


@pytest.fixture(scope="module")
def package():
    return random_package(
        np.random.default_rng(3),
        dim=32,
        depth=1,
        heads=2,
        image_size=12,
        patch_size=4,
        hidden=48,
        classes=5,
        pruning=[{"layer": 0, "keep": 5, "threshold": 0}],
        ffn2_rule="image",
        tile_rows=8,
        ffn_chunk=48,
    )


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def open_sim(standin, **options) -> Accelerator:
    device = SimDevice(TINY, rtl=standin, frontend="hls")
    options = {"timeout": HANG} | options
    return Accelerator(RowvitOverlay(device.bitstream, device=device), on_close=device.close, **options)


@pytest.mark.parametrize("stalls", [0, 5])
def test_frames_of_any_size(package, frames, stalls):
    golden = Golden(TINY, frontend="hls")
    golden.load(package)
    expected = golden(frames)
    with rowvit.open("sim", TINY, frontend="hls", stalls=stalls, check_every=2) as acc:
        acc.load(package)
        assert [result.bit_exact for result in acc(frames[:3])] == [True, None, True]
        for batch in (1, 2, 5):
            for result, want in zip(acc(frames, batch), expected, strict=True):
                assert result.same(want)
        for result, want in zip(acc.stream(iter(frames)), expected, strict=True):
            assert result.same(want)
    assert len({tuple(result.logits) for result in expected}) > 1


def test_images_of_the_networks_size_are_the_host_front_ends(package):
    images = np.random.default_rng(5).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    golden = Golden(TINY)
    golden.load(package)
    with rowvit.open("sim", TINY, frontend="hls") as acc:
        acc.load(package)
        assert all(map(rowvit.targets.target.Result.same, acc(images), golden(images)))


def test_photos_on_disk(package, frames, tmp_path):
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(len(frames))]
    with rowvit.open("golden", TINY, frontend="hls") as golden:
        golden.load(package)
        assert all(map(rowvit.targets.target.Result.same, golden(paths), golden(frames)))


def test_what_cannot_be_a_frame(package, standin):
    with open_sim(standin) as acc:
        acc.load(package)
        with pytest.raises(RowvitError, match=r"images are uint8 \[1, 9, 9, 4\]; .* \[B, height, width, 3\]"):
            acc(np.zeros((1, 9, 9, 4), np.uint8))
        with pytest.raises(RowvitError, match="a frame of 4096 x 2 pixels does not go through"):
            acc([np.zeros((2, 4096, 3), np.uint8)])
        with pytest.raises(RowvitError, match="frame of 5 x 0 pixels"):
            acc([np.zeros((0, 5, 3), np.uint8)])


def test_a_frame_that_is_refused_leaves_those_before_it(package, frames):
    bad = np.zeros((2, 4096, 3), np.uint8)
    with rowvit.open("sim", TINY, frontend="hls") as acc:
        acc.load(package)
        stream, results = acc.stream([*frames[:2], bad, frames[2]]), []
        with pytest.raises(RowvitError, match="a frame of 4096 x 2 pixels"):
            results.extend(next(stream) for _ in range(4))
        assert len(results) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.sizes.__setitem__(0, batch.sizes[0] - 8), "ended early"),
        (lambda batch: batch.sizes.__setitem__(0, batch.sizes[0] + 8), "too long"),
        (lambda batch: batch.slot.source.__setitem__((0, 0), 0), "ended early"),
    ],
    ids=["short", "long", "header"],
)
def test_damaged_frames_stop_the_core(package, frames, change, message):
    """The core's own error says it, and the next frame is right."""
    with rowvit.open("sim", TINY, frontend="hls") as acc:
        acc.load(package)
        (expected,) = acc(frames[3:4])
        stage = acc._stage

        def damaged(images, slots, slot):
            source, sink = (acc._allocate((1, 40_000)) for _ in range(2))  # room for a word more
            slots[slot] = _Slot(source, sink)
            batch = stage(images, slots, slot)
            change(batch)
            batch.slot.source.flush()
            return batch

        acc._stage = damaged
        with pytest.raises(
            RowvitError, match=f"the core stopped at .*the input packet of an image.*{message}"
        ):
            acc(frames[3:4])
        acc._stage = stage
        (result,) = acc(frames[3:4])
        assert result.same(expected)


def test_networks_beyond_the_kernel_are_refused_at_once(standin):
    large, wide = dict(image_size=288, patch_size=16), dict(image_size=32, image_width=64, patch_size=16)
    with open_sim(standin) as acc:
        acc.config = replace(TINY, name="unused")
        with pytest.raises(RowvitError, match=r"cannot make 18 x 18 patches of 16 pixels.*host front end"):
            acc.load(_program(large))
        with pytest.raises(RowvitError, match=r"makes squares, .* of 32 x 64 pixels .*host front end"):
            acc.load(_program(wide))


def _program(architecture):
    from rowvit.compiler import Program

    meta = {"config": {"name": "tiny", "hash": TINY.hash}, "architecture": architecture}
    return Program(np.zeros((0, 32), np.uint16), np.zeros(8, np.uint8), meta, checked=True)


def test_the_watchdog_allows_for_the_frame(package, standin):
    """A frame takes a cycle per pixel before the first patch need be there."""
    with open_sim(standin, watchdog=1000) as acc:
        acc.load(package)
        starts = []
        acc.core.start = lambda *values: starts.append(values) or acc.core.reset()
        acc.timeout = 0.1
        with pytest.raises(RowvitError):
            acc([np.zeros((60, 50, 3), np.uint8)])
        assert starts[0][-1] == 4000


@pytest.mark.parametrize("name", boards())
def test_the_handoff_tells(name, tmp_path):
    config = replace(TINY, board=name)
    for frontend in ("host", "hls"):
        path = tmp_path / f"{frontend}.hwh"
        path.write_text(hwh.handoff(config, frontend))
        found = Handoff(path)
        assert found.frontend == frontend
        assert found.config.hash == TINY.hash


def test_diagnose(monkeypatch):
    """The walk over a board finds the front end, and passes through it."""
    device = SimDevice(replace(TINY, board="Pynq-Z2"), frontend="hls")
    monkeypatch.setattr(type(Device), "devices", [device], raising=False)
    checks = {check.name: check for check in diagnose("board", TINY, Path(device.bitstream))}
    device.close()
    assert "hls front end" in checks["core"].text
    assert not [name for name, check in checks.items() if check.ok is False]
    assert checks["speed"].ok is None  # the simulator's clock is not the world's: its core is slower
    assert "words in" in checks["transfer"].text


def test_diagnose_takes_networks_that_pass_the_kernel():
    """One of 384 pixels is more than the kernel's 256."""
    walk = _Walk("board", configs.load("zcu104"), None)
    sizes = ((24, 16, 384), (14, 16, 384))
    for frontend, side in (("host", 384), ("hls", 224)):
        walk.overlay = SimpleNamespace(frontend=frontend)
        package, _ = walk._fitting(sizes)
        assert package.arch["image_size"] == side


@pytest.mark.parametrize("has, asked", [("host", "hls"), ("hls", "host")])
def test_a_bitstream_with_the_other_front_end(monkeypatch, standin, has, asked):
    device = SimDevice(TINY, rtl=standin, frontend=has)
    with pytest.raises(RowvitError, match=f"has the {has} front end, not {asked}; use --frontend {has}"):
        RowvitOverlay(device.bitstream, device=device, frontend=asked)
    assert RowvitOverlay(device.bitstream, device=device, frontend=has).frontend == has
    monkeypatch.setattr(type(Device), "devices", [device], raising=False)
    with rowvit.open("board", bitstream=device.bitstream) as acc:
        assert acc.frontend == has


def test_default_bitstreams():
    for frontend, name in (("host", "rowvit-tiny.bit"), ("hls", "rowvit-tiny-hls.bit")):
        with pytest.raises(RowvitError, match=f"{name} does not exist"):
            rowvit.open("board", TINY, frontend=frontend)


@pytest.mark.parametrize("target", ["golden", "sim"])
def test_unknown_front_end(target):
    with pytest.raises(RowvitError, match="no front end 'camera'; use host or hls"):
        rowvit.open(target, TINY, frontend="camera")


def test_command(package, frames, tmp_path):
    package.save(tmp_path / "net.safetensors")
    for i, frame in enumerate(frames[:2]):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    arguments = ["run", str(tmp_path / "net.safetensors"), str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    arguments += ["--config", "tiny", "--frontend", "hls", "--check", "--json", "-"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["frontend"] == "hls"
    assert [image["bit_exact"] for image in report["images"]] == [True, True]
