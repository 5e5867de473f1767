# SPDX-License-Identifier: Apache-2.0
"""How much energy an image takes: the protocol of a power measurement.

Passes come in pairs, one idle (overlay and network loaded, core not started) and one busy, in shuffled
order, so that drift affects both alike. `statistics` makes figures of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rowvit.measure import result
from rowvit.measure.power.instrument import Instrument
from rowvit.measure.power.passes import PowerPass, PowerPlan
from rowvit.measure.power.statistics import add_figures
from rowvit.measure.temperature import Read, temperatures, thermometer

if TYPE_CHECKING:
    from rowvit.targets.session import ImageSet, Session


def measure(
    plan: PowerPlan,
    work: Callable[[], int],
    instrument: Instrument,
    temperature: Read | None = None,
    clock: Any = time,
    progress: Callable[[PowerPass], None] = lambda done: None,
) -> list[PowerPass]:
    """Make the passes.

    Parameters
    ----------
    plan : PowerPlan
    work : callable
        Classifies some images and returns how many; the network is loaded already.
    instrument : Instrument
    temperature : callable, optional
        Gives degrees Celsius.
    clock : object
        With ``monotonic()`` and ``sleep(seconds)``.
    progress : callable
        Gets every pass when it is over.

    Raises
    ------
    RowvitError
        The accelerator or the instrument failed.
    """

    def occupy(kind: str, seconds: float) -> int:
        """Work, or wait, for at least this long; returns the images."""
        if kind == "idle":
            clock.sleep(seconds)
            return 0
        images, until = 0, clock.monotonic() + seconds
        while clock.monotonic() < until:
            images += work()
        return images

    work()  # the first start allocates and compiles what later ones reuse
    passes = []
    for pair, kind in plan.order():
        instrument.start()
        try:
            start = clock.monotonic()
            occupy(kind, plan.settle)
            begin = clock.monotonic()
            images = occupy(kind, plan.seconds)
            end = clock.monotonic()
            degrees = temperature() if temperature else None
            # beyond the end by two samples, so that the end lies between samples of the same load
            occupy(kind, max(plan.tail, 2 * instrument.interval))
            stop = clock.monotonic()
        finally:
            instrument.stop()
        passes.append(PowerPass(pair, kind, start, begin, end, stop, images, degrees))
        progress(passes[-1])
    return passes


def document(
    session: Session,
    images: ImageSet,
    plan: PowerPlan,
    instrument: Instrument,
    batch: int = 8,
    progress: Callable[[float, str, float], None] = lambda done, note, total: None,
) -> dict[str, Any]:
    """Make the passes, and describe them: the result that ``rowvit power`` writes.

    Parameters
    ----------
    session : Session
    images : ImageSet
        From `Session.choose`. All of them are classified in one call, so that the core never waits for the
        host through an idle pass.
    plan : PowerPlan
    instrument : Instrument
        Without samples yet, or ever, the result lacks figures; see `instruments.meter.join`.
    batch : int
        Images per start of the core, at most as many as there are; those behind the last whole batch are left
        out.
    progress : callable
        Gets seconds that the passes have taken, a phrase, and seconds that they will take in all: known when
        the images have been classified once.

    Raises
    ------
    RowvitError
        The target cannot be opened, or the accelerator or the instrument failed.
    """
    source, read = thermometer(session.target_name)
    found = result.describe("power", session, images)
    target, batch = session.target, min(batch, len(images.pixels))
    whole = images.pixels[: len(images.pixels) // batch * batch]
    wall = time.time() - time.monotonic()
    done: list[PowerPass] = []
    begun = total = 0.0

    def note() -> None:
        progress(time.monotonic() - begun, f"{len(done)} of {2 * plan.pairs} passes", total)

    def work() -> int:
        nonlocal begun, total
        start = time.monotonic()
        count = len(target(whole, batch))
        if not begun:
            begun = time.monotonic()
            total = plan.forecast(begun - start, instrument.interval)
        note()
        return count

    def over(one: PowerPass) -> None:
        done.append(one)
        note()

    passes = measure(plan, work, instrument, read, progress=over)
    degrees = [one.temperature for one in passes]
    found |= {
        "protocol": {
            "warm_up": f"all images once, and {plan.settle:g} s of the same load before every pass",
            "repetitions": plan.pairs,
            "batch": batch,
            **asdict(plan),
            "order": [kind for _, kind in plan.order()],
            "wall_minus_monotonic_s": wall,
        },
        "instrument": {
            "name": instrument.name,
            "measures": instrument.measures,
            "sampling_hz": {"none": instrument.name},
        },
        "idle": {"none": "no power was measured"},
        "temperature": temperatures(source, degrees, session.target_name),
        "passes": [asdict(one) for one in passes],
        "power": {"none": instrument.name},
    }
    if instrument.available == "now":
        add_figures(found, instrument)
    return found
