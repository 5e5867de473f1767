# SPDX-License-Identifier: Apache-2.0
"""A training run from a float network to the file of the trained one."""

from __future__ import annotations

from pathlib import Path

from rowvit.model import store
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer
from rowvit.train.data import Photos
from rowvit.train.loop import Progress, Trainer
from rowvit.train.recipe import Phase, Recipe


def fine_tune(
    network: VisionTransformer,
    card: Card,
    photos: Photos,
    recipe: tuple[str, Recipe],
    output: Path,
    teacher: tuple[VisionTransformer, Card] | None = None,
    workers: int = 0,
    save_every: float = 60.0,
    progress: Progress = lambda done, total, phase, loss: None,
) -> bool:
    """Train in place and save the network at ``output``; a run that was killed is continued.

    Parameters
    ----------
    network, photos, teacher, workers, save_every
        As of `Trainer`.
    card : Card
        Gets a line of history, and loses its accuracy.
    recipe : (str, Recipe)
        With its name, for the history.
    output : Path
        The state of the run is kept in ``output.state``.
    progress : callable
        Gets steps done, steps in all, phase and loss after every step of the first process.

    Returns
    -------
    bool
        Whether this is the first process, which alone saves the network.

    Raises
    ------
    RowvitError
        As `Trainer`, or a file cannot be written.
    """
    name, steps = recipe
    state = output.with_name(output.name + ".state")
    trainer = Trainer(network, card, photos, steps, state, teacher, workers, save_every)
    first = trainer.rank == 0

    def step(done: int, total: int, phase: Phase, loss: float) -> None:
        if first:
            progress(done, total, phase, loss)

    trainer.run(step)
    phases = ", ".join(phase.name or f"{phase.epochs:g} epochs" for phase in steps.phases)
    card.history.append(f"trained by {name} ({phases}) on {photos.name}")
    card.accuracy = {}
    if first:
        store.save(output, network, card)
    trainer.forget()
    return first
