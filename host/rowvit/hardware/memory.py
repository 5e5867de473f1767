# SPDX-License-Identifier: Apache-2.0
"""The DDR as the core sees it: one set of defaults for simulator, cycle model and command line."""

from __future__ import annotations

from dataclasses import dataclass

from rowvit.hardware.pipeline import BURST_WORDS, BURSTS


@dataclass(frozen=True)
class Memory:
    """Latency and bandwidth of the DDR."""

    latency: int = 40  #: cycles from a read's address to its first word
    rate: int = 85  #: percent of the cycles that carry a word, for core and DMA together
    ideal: bool = False  #: no latency, and a word for everyone in every cycle

    @property
    def beats_per_cycle(self) -> float:
        """Of the core's port: what the DDR gives, and the bursts that the core has in flight."""
        if self.ideal:
            return 1.0
        return min(self.rate / 100, BURSTS * BURST_WORDS / (self.latency + BURST_WORDS))

    def words_per_cycle(self, port_bits: int) -> float:
        """Words of 64 bits, by a port of so many bits."""
        return self.beats_per_cycle * port_bits / 64

    def __str__(self) -> str:
        if self.ideal:
            return "ideal memory"
        return f"{self.latency} cycles latency, a word in {self.rate} % of the cycles"
