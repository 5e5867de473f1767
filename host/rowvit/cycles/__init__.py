# SPDX-License-Identifier: Apache-2.0
"""How many cycles a program takes, without running it: a discrete-event model of the engines.

Every engine is a coroutine that advances one band, tile or piece of a load at a time, in order of time, and
waits where its instruction says so. What depends on data (tokens alive, non-zeros, rows of W2) comes as
`LayerStatistics`, from the integer reference or assumed. The constants are the pipeline lengths of the RTL
(`rowvit.hardware.pipeline`); ``tests/network/test_cycle_model.py`` compares with the RTL.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rowvit.cycles.array import Array
from rowvit.cycles.counts import activity
from rowvit.cycles.data import LayerStatistics, LayerTimes, Prediction, Slice, Statistics, assumed, measured
from rowvit.cycles.dispatch import dispatch
from rowvit.cycles.jobs import jobs
from rowvit.cycles.load import Loader
from rowvit.cycles.machine import Machine
from rowvit.cycles.norm import Norm
from rowvit.cycles.tokens import receive, select
from rowvit.errors import RowvitError
from rowvit.formats.program import Program
from rowvit.formats.records import spans
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.memory import Memory

__all__ = [
    "LayerStatistics",
    "LayerTimes",
    "Memory",
    "Prediction",
    "Slice",
    "Statistics",
    "activity",
    "assumed",
    "measured",
    "predict",
]


def predict(
    program: Program,
    config: HardwareConfig,
    memory: Memory | None = None,
    statistics: Statistics | Sequence[Statistics] | None = None,
    images: int = 1,
) -> Prediction:
    """Predict the cycles of a start of the core.

    Parameters
    ----------
    program : Program
    config : HardwareConfig
        What the program was compiled for.
    memory : Memory, optional
    statistics : list of LayerStatistics, or one such list per image, optional
        From `measured` or, by default, `assumed`.
    images : int
        Images of the start; the pass for several images is used if they are a multiple of those.

    Raises
    ------
    RowvitError
        Operations of the program wait for each other.
    """
    found = _per_image(statistics or assumed(program), images)
    part = program.pass_for(len(found))
    machine = Machine(config, memory or Memory(), found, program.meta["architecture"]["depth"])
    machine.dispatcher = dispatch(machine, jobs(program, part, config, found))
    engines = (Loader(machine).run(), Array(machine).run(), Norm(machine).run())
    for process in (*engines, select(machine), receive(machine), machine.dispatcher):
        machine.start(process, 0.0)
    machine.run()
    if len(machine.ends) * part.images < len(found):
        stuck = ", ".join(queue[0].slice.name for queue in machine.queues.values() if queue)
        raise RowvitError(f"the program never ends: {stuck} wait for each other", "compile it again")
    marks = [[round(mark) for mark in own] for own in machine.marks]
    # as in a Result, a pass but the last ends with its last mark
    ends = [own[-1] for own in marks[part.images - 1 :: part.images]]
    ends[-1] = round(machine.ends[-1])
    spent = [
        image
        for number, (start, end) in enumerate(pairwise([0, *ends]))
        for image in spans(start, marks[number * part.images :][: part.images], end, part.shares)
    ]
    return Prediction(
        total=ends[-1],
        layer_cycles=spent[-1],
        image_cycles=[sum(image) for image in spent],
        layers=machine.layers,
        timeline=sorted(machine.timeline, key=lambda s: s.start),
    )


def _per_image(found: Statistics | Sequence[Statistics], images: int) -> list[Statistics]:
    """Statistics of every image, where those of one may be meant for all."""
    layers = [layer for layer in found if isinstance(layer, LayerStatistics)]
    if layers:
        return [layers] * images
    return [one for one in found if not isinstance(one, LayerStatistics)][:images]
