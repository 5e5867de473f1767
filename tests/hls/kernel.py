# SPDX-License-Identifier: Apache-2.0
"""The simulated kernel, clocked from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

import numpy as np

from rowvit.reference.frontend import Geometry, fill_packet
from rowvit.sim.verilate import build_frontend


class Ports(ctypes.Structure):
    """``FrontendPorts`` of hls/sim/ports.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("s_tdata", "m_tdata")),
        *((name, ctypes.c_uint8) for name in ("s_tvalid", "s_tlast", "m_tready")),
        *((name, ctypes.c_uint8) for name in ("s_tready", "m_tvalid", "m_tlast")),
    ]


class Kernel:
    """One kernel; ``cycles`` counts its clock."""

    def __init__(self) -> None:
        library = ctypes.CDLL(str(build_frontend()))
        library.frontend_new.restype = ctypes.c_void_p
        for function in (library.frontend_clock, library.frontend_reset):
            function.argtypes = [ctypes.c_void_p, ctypes.POINTER(Ports)]
        library.frontend_delete.argtypes = [ctypes.c_void_p]
        self.library, self.handle = library, library.frontend_new()
        self.ports = Ports()
        self.cycles = 0

    def __del__(self) -> None:
        self.library.frontend_delete(self.handle)

    def reset(self) -> None:
        self.library.frontend_reset(self.handle, self.ports)

    def run(
        self,
        packets: Iterable[np.ndarray],
        rng: np.random.Generator | None = None,
        cut: bool = False,
        idle: int = 20_000,
    ) -> list[np.ndarray]:
        """Send packets (uint64 arrays), receive until nothing has moved for ``idle`` cycles.

        With ``rng`` both sides stall, in stretches; with ``cut`` the last packet has no TLAST. Returns the
        packets that came out (uint64); words after the last TLAST are the last of them, and ``self.open``
        tells whether there are any.
        """
        words = [(int(w), i == len(p) - 1) for p in packets for i, w in enumerate(p)]
        if cut:
            words[-1] = (words[-1][0], False)
        ports, clock, handle = self.ports, self.library.frontend_clock, self.handle
        found: list[list[int]] = [[]]
        sent = quiet = 0
        stalls = _stalls(rng)
        while quiet < idle:
            go = next(stalls)
            if not ports.s_tvalid and sent < len(words) and go[0]:
                ports.s_tdata, ports.s_tlast = words[sent]
                ports.s_tvalid = 1
            ports.m_tready = bool(go[1])
            took, gave = ports.s_tvalid and ports.s_tready, ports.m_tvalid and ports.m_tready
            if gave:
                found[-1].append(ports.m_tdata)
                if ports.m_tlast:
                    found.append([])
            clock(handle, ports)
            self.cycles += 1
            if took:
                ports.s_tvalid = 0
                sent += 1
            quiet = 0 if took or gave else quiet + 1
        assert sent == len(words)
        self.open = bool(found[-1])
        return [np.array(p, np.uint64) for p in found if p]


def _stalls(rng: np.random.Generator | None) -> Iterator[tuple[bool, bool]]:
    """Whether the source and the sink act in each cycle: stretches of different rates, or always."""
    while True:
        rates = rng.choice([0.05, 0.5, 0.95, 1.0], 2) if rng else (1.0, 1.0)
        draws = rng.random((200, 2)) if rng else np.zeros((200, 2))
        yield from (draws < rates).tolist()


def words(frame: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A frame's packet, padded to whole words."""
    packet = np.zeros(-(-geometry.packet_bytes // 8) * 8, np.uint8)
    fill_packet(frame, geometry, packet[: geometry.packet_bytes])
    return packet.view(np.uint64)


def rows(pixels: np.ndarray, patch: int) -> np.ndarray:
    """What the core takes for pixels uint8 [S, S, 3]: patches from first principles, as uint64 words."""
    grid = len(pixels) // patch
    found = []
    for gy in range(grid):
        for gx in range(grid):
            tile = pixels[gy * patch : (gy + 1) * patch, gx * patch : (gx + 1) * patch]
            row = (tile.astype(np.int16) - 128).astype(np.int8).tobytes()
            found.append(row + bytes(-len(row) % 8))
    return np.frombuffer(b"".join(found), np.uint64)
