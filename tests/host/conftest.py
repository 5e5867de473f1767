# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pynq
import pytest
from waiting import HANG

from replay import TINY
from rowvit.overlay import RowvitOverlay, claim
from rowvit.sim.device import SimDevice
from rowvit.targets.driver import Accelerator

if pynq.__version__.startswith("3.0."):  # its clocks go by the processor that Python runs on
    pynq.ps.CPU_ARCH = "armv7l"


@pytest.fixture(autouse=True)
def own_lock(monkeypatch, tmp_path):
    """Tests side by side, each with a board, and whoever runs them."""
    monkeypatch.setattr(claim, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(claim, "_CLAIM", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def make(standin):
    """Accelerators on the stand-in."""
    opened = []

    def one(seed: int = 0, config=TINY, memory=None, budget=30_000, cached=True, **options) -> Accelerator:
        device = SimDevice(TINY, memory, seed, budget, rtl=standin, cached=cached)
        opened.append(device)
        return Accelerator(RowvitOverlay(device.bitstream, config, device), **{"timeout": HANG} | options)

    yield one
    for device in opened:
        device.close()
