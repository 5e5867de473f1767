# SPDX-License-Identifier: Apache-2.0
"""What a power measurement does: idle and busy passes, in shuffled order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rowvit.errors import RowvitError

#: fewer pairs say too little about their own spread
FEWEST_PAIRS = 5


@dataclass(frozen=True)
class PowerPlan:
    """What is done."""

    pairs: int = 10  #: idle passes, and as many busy ones
    seconds: float = 10.0  #: measured part of a pass; a busy one lasts until its last image is done
    settle: float = 3.0  #: seconds of the same load before that, which are not counted
    tail: float = 0.5  #: seconds of the same load after it, since the sensor lags
    seed: int = 0  #: of the order

    def __post_init__(self) -> None:
        if self.pairs < FEWEST_PAIRS:
            raise RowvitError(
                f"{self.pairs} pairs of passes are too few for an uncertainty", f"use at least {FEWEST_PAIRS}"
            )
        if self.seconds <= 0 or self.settle < 0 or self.tail < 0:
            raise RowvitError("a pass must take more than 0 s, and settle and tail at least 0 s")

    def order(self) -> list[tuple[int, str]]:
        """(pair, "idle" or "busy") of every pass; half of the pairs, drawn at random, start with "busy"."""
        first = np.random.default_rng(self.seed).permutation(np.arange(self.pairs) % 2)
        return [(pair, ("idle", "busy")[first[pair] ^ turn]) for pair in range(self.pairs) for turn in (0, 1)]

    def forecast(self, work: float, interval: float = 0.0) -> float:
        """Seconds that it takes, if the shortest load takes ``work`` seconds, and a sample ``interval``."""
        parts = self.settle, self.seconds, max(self.tail, 2 * interval)
        return self.pairs * sum(part + math.ceil(part / work) * work for part in parts)


#: on a simulated accelerator, which takes seconds for an image, and whose power nobody asks for
DRY_RUN = PowerPlan(pairs=5, seconds=2.0, settle=0.5)


@dataclass(frozen=True)
class PowerPass:
    """One pass; times are seconds of the monotonic clock."""

    pair: int
    kind: str  #: "idle" or "busy"
    start: float  #: of the load
    begin: float  #: of what counts
    end: float  #: of what counts
    stop: float  #: of the load
    images: int  #: classified between ``begin`` and ``end``
    temperature: float | None = None  #: degrees Celsius at ``end``

    @property
    def seconds(self) -> float:
        return self.end - self.begin
