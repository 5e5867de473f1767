# SPDX-License-Identifier: Apache-2.0
"""Random networks and starts for small arrays, by number: the same number is the same case.

They are drawn so that every branch of the compiler makes a program that then runs on the RTL
(`test_reached.py`): sharing behind early and hard pruning, neurons that few tokens use, chunks that fit once
or twice, memories with little room.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rowvit.compiler import compile
from rowvit.compiler.head import frame, headless, with_head
from rowvit.compiler.plan import ALONE, Plan, Stages
from rowvit.compiler.sharing import candidates
from rowvit.errors import RowvitError
from rowvit.formats.description import image_shape
from rowvit.formats.package import ModelPackage
from rowvit.formats.program import Program
from rowvit.hardware.config import HardwareConfig, load
from rowvit.quant.synthetic import random_package

sys.path.append(str(Path(__file__).parents[1]))
from outputs import varied

TINY = load("tiny")
_ROOMY = dict(token_depth=4096, residual_depth=4096)
_CRAMPED = dict(weight_depth=208, token_depth=320, residual_depth=1024, param_slots=2, mask_depth=16)
#: `tiny`, an array like it with little room, and others with more rows, which share ports of the weight
#: memory and LayerNorm's lanes, with room for several images of 50 tokens, and a memory port of 128 bits
ARRAYS = {
    "tiny": TINY,
    "tiny-2x3": replace(TINY, name="tiny-2x3", groups=3, **_CRAMPED),
    "tiny-4x1": replace(TINY, name="tiny-4x1", rows=4, **_ROOMY),
    "tiny-8x2": replace(TINY, name="tiny-8x2", rows=8, groups=2, port_bits=128, **_ROOMY),
}


#: configurations that are built for long runs only
SHIPPED = ("pynq-z2", "kv260")
#: cases of each array in a run; more for a longer run, and others from a number on
COUNT = int(os.environ.get("ROWVIT_NETWORKS", "12"))
FIRST = int(os.environ.get("ROWVIT_FIRST", "0"))
#: where there is little room, every branch takes two more
NUMBERS = {array: range(FIRST, FIRST + COUNT + 2 * (array == "tiny-2x3")) for array in ARRAYS}
RECTANGLES = range(FIRST, FIRST + -(-COUNT // 6))  # of each array


@dataclass(frozen=True)
class Case:
    """A network and how it is run."""

    package: ModelPackage
    config: HardwareConfig
    program: Program
    images: np.ndarray  #: uint8 [B, H, W, 3]
    batch: int
    stalls: int


def case(array: str, number: int, rectangle: bool = False) -> Case:
    """A case that fits its array; with ``rectangle`` of any number of patches, else of a square's."""
    rng = np.random.default_rng([number, [*ARRAYS, *SHIPPED].index(array)])
    config = ARRAYS[array] if array in ARRAYS else load(array)
    program, tries = None, 0
    new_head = bool(rng.spawn(1)[0].integers(2))  # it is put into a program that was compiled without it
    while program is None:
        tries += 1
        assert tries < 300, "nothing fits"
        package, batch = _package(rng, config, rectangle), int(rng.integers(1, 10))
        package = _varied(np.random.default_rng([number, tries, len(array)]), package, config)
        try:
            stages = _stages(rng, Plan(package.meta, config))
            batch = batch if stages is None else stages[-1].images * (1 + batch % 2)
            options = config, rng.random() < 0.7, batch, stages
            program = compile(headless(package) if new_head else package, *options)
        except RowvitError:
            pass  # does not fit; the refusals have tests of their own
    if new_head:
        assert frame(headless(package), config) == frame(package, config)
        program = with_head(program, package, config)
    shape = image_shape(package.arch)
    images = rng.integers(0, 256, (batch + int(rng.integers(2)), *shape, 3), dtype=np.uint8)
    return Case(package, config, program, images, batch, int(rng.integers(4)))


def _varied(rng: np.random.Generator, package: ModelPackage, config: HardwareConfig) -> ModelPackage:
    """With other outputs; a few without a class token, and so without a head and pruning."""
    if rng.random() < 0.92 or package.arch["tokens"] == 1 + package.arch["prefix"]:
        return varied(rng, package, rotary=config.rotary_tokens > 0)
    sizes = ("image_size", "patch_size", "dim", "depth", "heads", "hidden")
    rules = ("ffn2_rule", "tile_rows", "ffn_chunk")
    return random_package(
        rng,
        **{size: package.arch[size] for size in sizes},
        **{rule: package.meta[rule] for rule in rules},
        image_width=package.arch.get("image_width"),
        classes=0,
        prefix=0,
        tokens={"rows": "all", "layers": [package.arch["depth"] - 1]},
        pre_norm=rng.random() < 0.3,
    )


def _stages(rng: np.random.Generator, plan: Plan) -> Stages | None:
    """Any stages that fit, or None: what the compiler chooses."""
    if plan.rule == "tile" or rng.random() < 0.3:
        return None
    choices = [ALONE, *candidates(plan, 6)]
    later = [stages for stages in choices if stages[-1].images > stages[0].images == 1]
    if later and rng.random() < 0.7:
        choices = later
    return choices[int(rng.integers(len(choices)))]


def _package(rng: np.random.Generator, config: HardwareConfig, rectangle: bool) -> ModelPackage:
    def integer(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    depth, rule = integer(1, 4), str(rng.choice(["none", "image", "image", "tile"]))
    # many tokens in the first layer, few from the second on, whose images share loads; rows for late bands
    late = rng.random() < 0.3
    if late:
        depth, rule = integer(3, 4), "image"
    heads = integer(1, 4)
    dim = config.lanes * integer(-(-heads // 2), heads)
    while dim % heads:
        heads -= 1
    large = rng.random() < 0.05  # its patches come in chunks
    patch, grid = (20, integer(1, 2)) if large else (integer(1, 4), max(integer(1, 7), integer(1, 7)))
    columns = grid
    if rectangle:
        (own,) = rng.spawn(1)  # so that the other draws stay as they are without it
        columns = int(own.choice([count for count in range(1, 10) if count != grid]))
    prefix = integer(1, 4) if rng.random() < 0.3 else 1
    hidden = integer(9, 10 * config.lanes)
    pieces = 1 if late else int(rng.choice([1, 1, 2, 3]))
    chunk = integer(8, hidden) if rng.random() < 0.2 else max(8, -(-hidden // pieces))
    return random_package(
        rng,
        dim=dim,
        depth=depth,
        heads=heads,
        image_size=patch * grid,
        image_width=patch * columns,
        patch_size=patch,
        hidden=hidden,
        classes=integer(1, 80),
        prefix=prefix,
        pruning=[_step(rng, 1, 5)] if late else _pruning(rng, depth, grid * columns + prefix),
        ffn2_rule=rule,
        tile_rows=config.rows * integer(1, 8),
        ffn_chunk=chunk,
        thr=int(rng.choice([1, 1, 2, 30, 255])),
        columns=float(rng.uniform(0.1, 0.9)),
        rare=float(rng.choice([0.5, 0.9] if late else [0.0, 0.5, 0.9])),
        extreme=rng.random() < 0.25,
    )


def _step(rng: np.random.Generator, layer: int, below: int) -> dict:
    threshold = int(rng.choice([0, 0, 1 << 12, 1 << 16, 1 << 19]))
    return {"layer": layer, "keep": int(rng.integers(0, below)), "threshold": threshold}


def _pruning(rng: np.random.Generator, depth: int, tokens: int) -> list[dict]:
    """Nothing, anything, or the hard way: nearly all tokens early, so that few are left to share."""
    kind = rng.random()
    if kind < 0.15:
        return []
    found, live = [], tokens
    for layer in range(depth):
        hard = kind > 0.5 and layer < 2
        if hard or rng.random() < 0.5:
            found.append(_step(rng, layer, 5 if hard else live))
            live = min(live, found[-1]["keep"] + 1)
    return found
