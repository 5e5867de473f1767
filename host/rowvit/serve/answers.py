# SPDX-License-Identifier: Apache-2.0
"""What came of a picture: the document that programs get, and that the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import rowvit
from rowvit.cycles import measured, predict
from rowvit.formats.description import layer_names
from rowvit.formats.work import WORK
from rowvit.measure.draw.pictures import Look, looks
from rowvit.measure.speed.throughput import BASIS

if TYPE_CHECKING:
    from rowvit.formats.program import Program
    from rowvit.hardware.config import HardwareConfig
    from rowvit.serve.engine import TimedResult
    from rowvit.serve.networks import Network
    from rowvit.targets.golden import Golden
    from rowvit.targets.target import Result

#: where a target's results come from
EVIDENCE = {
    "board": "run on this board",
    "sim": "run on the simulated RTL, no board",
    "golden": "computed by the integer reference on this computer's processor, no board",
}
_CYCLES = {"board": "counted by the core", "sim": "simulated RTL", "golden": "predicted by the cycle model"}


@dataclass(frozen=True)
class Explanation:
    """What the integer reference, which computes the same bit for bit, adds to a result."""

    looks: list[Look]  #: the class token's attention in every layer
    reference: Result
    layer_cycles: list[int]  #: of embedding, each layer, and head, by the cycle model


def explain(golden: Golden, program: Program | None, pixels: np.ndarray) -> Explanation:
    """Run the integer reference on one image.

    Parameters
    ----------
    golden : Golden
        With the network loaded.
    program : Program, optional
        Of the same network, to predict the cycles of.
    pixels : uint8 array [H, W, 3]
    """
    (reference,) = golden([pixels])
    meta, cycles = golden.meta, []
    assert meta is not None
    if program is not None:
        statistics = measured(golden.counts[0])
        cycles = predict(program, golden.config, statistics=statistics).layer_cycles
    return Explanation(looks(reference, meta), reference, cycles)


def document(
    network: Network,
    answer: TimedResult,
    target: str,
    config: HardwareConfig,
    core_seconds: float,
    explanation: Explanation | None = None,
    said: Sequence[str] = (),
    photo: str = "",
) -> dict[str, Any]:
    """One answer, for JSON; its schema is `Answer` in the OpenAPI document.

    Parameters
    ----------
    network : Network
    answer : TimedResult
    target : str
        "golden", "sim" or "board".
    config : HardwareConfig
        With the clock that the core has.
    core_seconds : float
        What the image took, on the basis that ``latency.basis`` names.
    explanation : Explanation, optional
    said : sequence of str
        Sentences about the picture.
    photo : str
        The name of its file; empty if it has none.
    """
    result, meta = answer.result, network.meta
    probabilities = result.probabilities
    order = np.argsort(-probabilities, kind="stable")
    found: dict[str, Any] = {
        "model": network.name,
        "target": target,
        "evidence": EVIDENCE[target],
        "config": {"name": config.name, "hash": f"{config.hash:08X}", "clock_mhz": config.clock_mhz},
        "label": result.label,
        "classes": [
            {"label": str(meta["classes"][i]), "index": int(i), "probability": float(probabilities[i])}
            for i in order
        ],
        "logits": result.logits.tolist(),
        "tokens": {
            "input": meta["architecture"]["tokens"],
            "pruned": [
                {"layer": step["layer"], "alive": len(tokens), "kept": tokens.tolist()}
                for step, tokens in zip(meta["pruning"], result.kept, strict=True)
            ],
        },
        "work": {name: getattr(result, name) for name in WORK},
        "latency": {
            "ms": 1e3 * core_seconds,
            "basis": BASIS[target],
            "queue_ms": 1e3 * answer.waited,
            "answer_ms": 1e3 * answer.took,
        },
        "batch": result.batch,
        "notes": list(said),
        "rowvit": rowvit.__version__,
    }
    if photo:
        found["photo"] = photo
    if result.distance is not None:
        found |= {"verdict": result.verdict, "distance": result.distance}
    layers = result.layer_cycles or (explanation.layer_cycles if explanation else [])
    if layers:
        names = layer_names(meta)
        found["cycles"] = {
            "total": sum(layers),
            "source": _CYCLES[target],
            "layers": [{"name": n, "cycles": c} for n, c in zip(names, layers, strict=True)],
        }
    if explanation is not None:
        if target != "golden":
            found["bit_exact"] = result.same(explanation.reference)
        for name in WORK:  # of an image in a batch the core does not tell
            if found["work"][name] is None and found.get("bit_exact"):
                found["work"][name] = getattr(explanation.reference, name)
        found["attention"] = [
            {
                "layer": look.layer,
                "tokens": look.tokens.tolist(),
                "share": np.round(look.shares.mean(axis=0), 6).tolist(),
            }
            for look in explanation.looks
        ]
    return found
