# SPDX-License-Identifier: Apache-2.0
"""What the server counts: for Prometheus, and the figures of the last seconds for the page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from rowvit.serve.engine import InferenceQueue, TimedResult
    from rowvit.serve.networks import Network

WINDOW = 10.0  # seconds that "now" means
_KEPT = 512  # answers
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Now:
    """Figures of the last `WINDOW` seconds; None without images or without a sensor."""

    images: int  #: answers
    per_second: float | None  #: by the host's clock
    #: mean per image: simulated cycles at the core's clock, else the host's clock from pixels to result
    core_ms: float | None
    core_per_second: float | None  #: of ``core_ms``: what the core alone could do
    watts: float | None  #: mean power
    joules: float | None  #: energy per image, that of waiting included


@dataclass
class Statistics:
    """Of one network, since the start; seconds are sums over its images."""

    name: str
    last: float = 0.0  #: seconds since 1970 at the last answer
    images: int = 0
    took: float = 0.0  #: from the queue to the answer
    waited: float = 0.0  #: for the core
    failures: int = 0  #: requests for tensors that got none
    lost: float = 0.0  #: seconds of these
    #: by images per start of the core: how many images, and seconds that the core had
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)


class Metrics:
    """Counters of one server.

    Parameters
    ----------
    engine : callable
        Gives the engine, once it is there.
    simulated_mhz : float or None
        The core's clock, if its cycles are simulated: the host's clock would time the simulator.
    """

    def __init__(
        self, engine: Callable[[], InferenceQueue], simulated_mhz: Callable[[], float | None]
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._mhz = simulated_mhz
        self._statistics: dict[str, Statistics] = {}
        self._answers: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # when, seconds of the core
        self._watts: deque[tuple[float, float]] = deque(maxlen=_KEPT)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"rowvit_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            Gauge(f"rowvit_{name}", text, registry=self.registry).set_function(value)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"rowvit_{name}", text, labels, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered", "route", "status")
        self.request_seconds = histogram("request_seconds", "From request to answer", _SECONDS, "route")
        self._images = counter("images", "Images classified", "model")
        self._checked = counter("checked_images", "Of them, found equal to the integer reference", "model")
        self._queue_seconds = histogram("queue_seconds", "Image's wait for the core", _SECONDS)
        self._core_seconds = histogram(
            "core_seconds",
            "Time per image: simulated cycles at the core's clock on sim, else measured",
            _SECONDS,
            "model",
        )
        self._batch = histogram("batch_images", "Images of the start that ran an image", _BATCHES)
        self._cycles = counter("core_cycles", "Clock cycles of the core", "model")
        self._rows = counter("w2_rows", "Rows of W2, of images that ran alone or on golden", "model", "what")
        gauge("ready", "1 if the core answers", lambda: engine().ready)
        gauge("queue_images", "Images that wait or are computed", lambda: engine().held)
        gauge("queue_limit_images", "Images that may", lambda: engine().limit)
        gauge("core_faults", "Failures of the core since the start", lambda: engine().faults)
        gauge(
            "check_failures",
            "Checked images that differed from the integer reference since the start",
            lambda: engine().differences,
        )
        gauge("watts", "Power now; NaN without a sensor", lambda: self.now().watts or float("nan"))

    def answered(self, network: Network, answer: TimedResult) -> None:
        """Count an answer."""
        result, name = answer.result, network.name
        seconds = self.core_seconds(result.seconds, result.cycles)
        self._answers.append((time.monotonic(), seconds))
        self._images.labels(name).inc()
        if result.bit_exact:
            self._checked.labels(name).inc()
        self._queue_seconds.observe(answer.waited)
        self._core_seconds.labels(name).observe(seconds)
        self._batch.observe(result.batch)
        if result.cycles is not None:
            self._cycles.labels(name).inc(result.cycles)
        if result.w2_rows_total is not None and result.w2_rows_fetched is not None:
            self._rows.labels(name, "fetched").inc(result.w2_rows_fetched)
            self._rows.labels(name, "skipped").inc(result.w2_rows_total - result.w2_rows_fetched)

        own, batch = self.statistics(name), max(1, result.batch)
        own.last, own.images = time.time(), own.images + 1
        own.took, own.waited = own.took + answer.took, own.waited + answer.waited
        count, spent = own.batches.get(batch, (0, 0.0))
        own.batches[batch] = count + 1, spent + answer.took - answer.waited

    def failed(self, name: str, seconds: float) -> None:
        """Count a request for tensors of a network that got none."""
        own = self.statistics(name)
        own.failures, own.lost = own.failures + 1, own.lost + seconds

    def statistics(self, name: str) -> Statistics:
        """Those of a network."""
        return self._statistics.setdefault(name, Statistics(name))

    def core_seconds(self, measured: float, cycles: int | None) -> float:
        """Of an image: ``measured`` by the host's clock, or simulated cycles at the core's."""
        mhz = self._mhz()
        return measured if mhz is None or cycles is None else cycles / mhz / 1e6

    def power(self, watts: float) -> None:
        """Note a reading of the sensor."""
        self._watts.append((time.monotonic(), watts))

    def now(self) -> Now:
        """The last seconds."""
        end = time.monotonic()
        since = end - WINDOW
        if len(self._answers) == _KEPT:  # the window is as long as what is kept
            since = max(since, self._answers[0][0])
        core = [seconds for when, seconds in list(self._answers) if when > since]
        watts = [value for when, value in list(self._watts) if when > since]
        mean = sum(core) / len(core) if core else None
        rate = len(core) / (end - since) if core else None
        power = sum(watts) / len(watts) if watts else None
        return Now(
            len(core),
            rate,
            mean and 1e3 * mean,
            1 / mean if mean else None,
            power,
            power / rate if power is not None and rate else None,
        )

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)
