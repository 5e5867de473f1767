# SPDX-License-Identifier: Apache-2.0
"""Clocks for tests: what is measured by them does not depend on the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from waiting import HANG


class FakeClock:
    """Time that passes only when somebody waits."""

    def __init__(self, now: float = 5000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TickingClock(FakeClock):
    """Every look at it takes a while: loops that poll come to their deadline after so many turns."""

    def __init__(self, tick: float = 1e-3) -> None:
        super().__init__()
        self.tick = tick

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now


class SharedClock(FakeClock):
    """Time that passes only while all threads that share it sleep, or wait for the end of one.

    They are the one that makes it, and those of its `Thread`; ``moved`` is called whenever time has passed.
    """

    def __init__(self, now: float = 5000.0) -> None:
        super().__init__(now)
        self.moved: Callable[[], object] = lambda: None
        self._awake, self._due = 1, []
        self._changed = threading.Condition()

        class Thread(threading.Thread):
            def start(this) -> None:
                with self._changed:
                    self._awake += 1
                super().start()

            def run(this) -> None:
                try:
                    super().run()
                finally:
                    self._rest()

            def join(this, timeout: float | None = None) -> None:
                self._rest()
                super().join(timeout)
                with self._changed:
                    self._awake += 1

        self.Thread = Thread

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            with self._changed:
                due = self.now + seconds
                self._due.append(due)
                self._rest()
                assert self._changed.wait_for(lambda: self.now >= due, HANG)

    def _rest(self) -> None:
        """One thread fewer is awake: if it was the last, time goes on to when the next one wants to be."""
        with self._changed:
            self._awake -= 1
            if self._due and not self._awake:
                self.now = min(self._due)
                self._awake = self._due.count(self.now)
                self._due = [due for due in self._due if due > self.now]
                self.moved()
                self._changed.notify_all()
