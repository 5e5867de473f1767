# SPDX-License-Identifier: Apache-2.0
"""How often networks give the same class, on photos that need no labels of theirs, as a Markdown table.

    python benchmarks/agreement.py gelu.safetensors relu.safetensors int8.safetensors --data PHOTOS

Every network is compared with the one before it, and with the first. The photos may be of anything: what is
asked is whether a conversion changed the network's answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from record import Record, record

from rowvit.measure.accuracy.evaluation import evaluate, load
from rowvit.photos import open_data


def main(
    networks: Annotated[
        list[Path], typer.Argument(help="Float networks and packages with the same classes.")
    ],
    data: Annotated[Path, typer.Option(help="Photos, as for rowvit eval; their labels are not used.")],
    photos: Annotated[int, typer.Option(help="Test photos, drawn with a fixed seed.")] = 2000,
    keep: Record = False,
) -> None:
    """Print the table."""
    chosen = open_data(data, "test").subset(photos)
    logits = []
    for path in networks:
        network = load(str(path))
        classes = network[1].classes if isinstance(network, tuple) else network.meta["classes"]
        anything = replace(chosen, labels=np.zeros(len(chosen), np.int64), classes=tuple(classes))
        logits.append(evaluate(network, anything).work.logits)
    guesses = [rows.argmax(axis=1) for rows in logits]
    print("| network | same class as the one before | as the first | the first's class in its top five |")
    print("|---|---|---|---|")
    classes = len(np.unique(guesses[0]))
    for index, path in enumerate(networks):
        shares = {}
        if index:
            five = np.argsort(-logits[index], axis=1, kind="stable")[:, :5]
            same = {"before": guesses[index] == guesses[index - 1], "first": guesses[index] == guesses[0]}
            same["in_five"] = (five == guesses[0][:, None]).any(axis=1)
            shares = {key: 100 * float(np.mean(s)) for key, s in same.items()}
        print(f"| {path.stem} | {' | '.join(f'{s:.1f} %' for s in shares.values()) or ' | | '} |")
        if keep:
            record("agreement", path.stem, {"photos": len(chosen), "classes": classes, **shares}, "torch")
    print(f"\n{classes} classes among the first's answers; {chosen.name}")


if __name__ == "__main__":
    typer.run(main)
