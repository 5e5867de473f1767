# SPDX-License-Identifier: Apache-2.0
"""The kernel between DMA and core of the simulated device, under PYNQ: frames by DMA, rows to the core."""

from __future__ import annotations

import numpy as np
import pytest
from pynq import Overlay, allocate

from kernel import rows, words
from rowvit.hardware import config as configs
from rowvit.hardware.isa import REGISTERS
from rowvit.reference.frontend import Geometry, fill_packet, resize
from rowvit.sim.device import MemoryModel, SimDevice

SIZES = [(30, 20, 12, 4), (7, 9, 16, 8), (100, 75, 9, 3), (12, 12, 12, 4)]


@pytest.fixture(params=[0, 5], ids=["smooth", "stalls"])
def overlay(request, standin):
    """The front end before a core that sends back what it takes."""
    device = SimDevice(configs.load("tiny"), rtl=standin, stalls=request.param, frontend="hls")
    overlay = Overlay(device.bitstream, device=device)
    overlay.rowvit_0.write(REGISTERS["PROGRAM"][0], 0xFF)
    yield overlay
    device.close()


def transfer(overlay, packet: np.ndarray, answer: int) -> np.ndarray:
    """Send bytes; the ``answer`` words that come back."""
    source, sink = allocate(packet.shape, np.uint8), allocate((8 * answer,), np.uint8)
    source[:] = packet
    overlay.axi_dma_0.recvchannel.transfer(sink)
    overlay.axi_dma_0.sendchannel.transfer(source)
    overlay.axi_dma_0.sendchannel.wait()
    overlay.axi_dma_0.recvchannel.wait()
    assert overlay.axi_dma_0.recvchannel.transferred == 8 * answer
    return np.array(sink).view(np.uint64)


def frame_and_packet(size) -> tuple[np.ndarray, Geometry, np.ndarray]:
    geometry = Geometry.of(*size)
    frame = np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    packet = np.empty(geometry.packet_bytes, np.uint8)
    fill_packet(frame, geometry, packet)
    return frame, geometry, packet


def test_frames(overlay):
    for size in SIZES:
        frame, geometry, packet = frame_and_packet(size)
        expected = rows(resize(frame, geometry), geometry.patch)
        np.testing.assert_array_equal(transfer(overlay, packet, len(expected)), expected)


def test_the_dma_resets_the_kernel(overlay):
    """A transfer is dropped in the middle of a frame; the next one starts anew."""
    frame, geometry, packet = frame_and_packet((200, 100, 12, 4))
    dma = overlay.axi_dma_0
    source = allocate(packet.shape, np.uint8)
    source[:] = packet
    dma.sendchannel.transfer(source)
    overlay.device.advance(500)
    assert not dma.sendchannel.idle
    dma.write(0, 4)
    for channel in (dma.sendchannel, dma.recvchannel):
        channel.start()
    expected = rows(resize(frame, geometry), geometry.patch)
    np.testing.assert_array_equal(transfer(overlay, packet, len(expected)), expected)


def test_loading_resets_the_kernel(standin):
    device = SimDevice(configs.load("tiny"), MemoryModel(ideal=True), rtl=standin, frontend="hls")
    overlay = Overlay(device.bitstream, device=device)
    frame, geometry, packet = frame_and_packet(SIZES[0])
    overlay.rowvit_0.write(REGISTERS["PROGRAM"][0], 0xFF)
    source = allocate(packet.shape, np.uint8)
    source[:] = packet
    overlay.axi_dma_0.sendchannel.transfer(source)
    device.advance(100)
    overlay.download()
    overlay.rowvit_0.write(REGISTERS["PROGRAM"][0], 0xFF)
    for channel in (overlay.axi_dma_0.sendchannel, overlay.axi_dma_0.recvchannel):
        channel.start()
    expected = rows(resize(frame, geometry), geometry.patch)
    np.testing.assert_array_equal(transfer(overlay, packet, len(expected)), expected)
    device.close()


def test_without_the_front_end_words_pass_as_they_are(standin):
    device = SimDevice(configs.load("tiny"), rtl=standin)
    overlay = Overlay(device.bitstream, device=device)
    overlay.rowvit_0.write(REGISTERS["PROGRAM"][0], 0xFF)
    frame, geometry, _ = frame_and_packet(SIZES[0])
    packet = words(frame, geometry)
    np.testing.assert_array_equal(transfer(overlay, packet.view(np.uint8), len(packet)), packet)
    device.close()
