# SPDX-License-Identifier: Apache-2.0
"""Estimates of what a board's processor takes for an image."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rowvit.errors import RowvitError
from rowvit.hardware import host
from rowvit.hardware.block_design import board, boards
from rowvit.hardware.config import load

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

Z2 = board("Pynq-Z2")


def test_counts_are_those_recorded() -> None:
    """`python benchmarks/host.py --arch ... --record` writes both files."""
    from host import estimated

    assert json.loads(host.COUNTS.read_text()) == json.loads(estimated())


def test_a_photo_by_hand() -> None:
    """Of the very networks that were counted: instructions over instructions per cycle, over the clock."""
    counts = json.loads(host.COUNTS.read_text())["armhf"]
    found = host.host_time(Z2, 224, host.PHOTO)
    driver, decode = (1e6 * counts[f"{step} deit-tiny"] for step in ("stream", host.PHOTO))
    assert found.driver == pytest.approx((driver / 650e3, driver / 325e3))
    assert found.decode == pytest.approx((decode / 650e3, decode / 325e3))
    assert found.per_image == pytest.approx(((driver + decode) / 2 / 650e3, (driver + decode) / 2 / 325e3))
    ready = host.host_time(Z2, 224, host.ARRAY)
    assert ready.decode == (0, 0) and ready.per_image == ready.driver


def test_what_limits() -> None:
    photo, array = (host.host_time(Z2, 224, source) for source in (host.PHOTO, host.ARRAY))
    low, high = photo.per_image
    assert photo.limit(low / 2) == "decode" and photo.limit(2 * high) == "fabric"
    assert photo.limit((low + high) / 2, "memory") == "memory or decode"
    assert photo.limit(2 * high, "memory") == "memory" and array.limit(0.01) == "driver"
    assert photo.share(low) == pytest.approx((1, high / low))
    assert photo.rate(low / 2) == pytest.approx((1e3 / high, 1e3 / low))
    assert photo.rate(10 * high) == pytest.approx((100 / high, 100 / high))


@pytest.mark.parametrize("name", boards())
def test_every_board_has_estimates(name: str) -> None:
    """They grow with the network's pixels, and from one source to the next larger one."""
    for source in host.SOURCES:
        times = [host.host_time(board(name), side, source).per_image for side in (32, 56, 128, 224, 384)]
        assert times == sorted(times) and all(0 < low < high for low, high in times)
    photos = [
        host.host_time(board(name), 224, f"JPEG {s}").decode for s in ("224x224", "640x480", "1920x1080")
    ]
    assert photos == sorted(photos)


def test_more_cores_decode_and_do_not_drive() -> None:
    wide = replace(Z2, processor=replace(Z2.processor, cores=64))
    found = host.host_time(wide, 224, host.PHOTO)
    assert found.per_image == found.driver and found.limit(0.01) == "driver"


def test_as_json_and_as_a_table() -> None:
    found = host.host_work(load("pynq-z2"), 224, 9.4)
    assert json.loads(json.dumps(found)) == found and found["board"] == "Pynq-Z2"
    assert "0.5 to 1 of them per cycle of 2 x Cortex-A9 at 650 MHz" in host.said(found)
    rows = host.rows(found)
    assert [row[0] for row in rows] == list(host.SOURCES)
    assert all(len(row) == len(host.HEAD) for row in rows)
    assert host.host_work(load("tiny"), 32, 1.0) == {"none": "'tiny' is of no board"}


def test_a_processor_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row says what differs from its family's; a mistake in it is named."""
    assert board("ZUBoard_1CG").processor == replace(board("ZCU104").processor, cores=2)
    row = (
        '[boards.Mine]\nfamily = "zynq-7000"\npart = "x"\nboard_part = "x"\nconfiguration = "pynq-z2"\n'
        'ram_style = "block"\nblock_ram = 1\nultra_ram = 0\npll_mhz = 1000.0\nprocessor = {}\n'
        '[boards.Mine.power]\ninstrument = "csv"\nrails = []\nmeasures = "it"\n'
    )

    def use(processor: str) -> None:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"  # a file is read once
        file.write_text(row.replace("{}", processor))
        monkeypatch.setenv("ROWVIT_BOARDS", str(file))

    use("{ mhz = 800.0 }")
    assert board("Mine").processor == replace(Z2.processor, mhz=800.0)
    wrong = {"{ mhz = 'fast' }": "mhz = 'fast'", "{ speed = 1 }": "speed", "7": "processor = 7"}
    for processor, message in wrong.items():
        use(processor)
        with pytest.raises(RowvitError, match=message):
            board("Mine")
