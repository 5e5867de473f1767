# SPDX-License-Identifier: Apache-2.0
"""Descriptions of heads that the host computes from tokens, of a package or program.

``host_head`` gives the classes of an image. Its ``pool`` is a key of `POOLS`, and ``steps`` is a list of
{op, ...}: ``op`` is in `STEPS`, ``name`` is that of its tensors, ``out`` how many numbers a linear step
gives, and ``steps`` are those of a residual step. Pooling by attention has ``heads``.

``row_heads`` give an answer for each of some tokens, which ``rows`` names (`ROWS`): ``scores``, the steps to
a number for each of its ``names``, and maybe ``boxes``, the steps to a box: its middle (x, y), width and
height as shares of the image's. `rowvit.reference.head` evaluates both.

Tensors, all float32: weight ([in, out] of a linear step, or gains) and bias of every step with a ``name``,
below ``host_head.{name}.``, ``row_heads.scores.{name}.`` and ``row_heads.boxes.{name}.``; of pooling by
attention host_head.pool.score [D, heads], .weight [D, D] and .bias [D] (docs/numerics.md, section 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: what is taken of the tokens -> how often their channels: the class token, the mean of the patches, both,
#: the means of all tokens' values by each head's attention, whose query is the network's own
POOLS = {"class": 1, "mean": 1, "class-mean": 2, "attention": 1}
#: what a step does -> the fields of its description besides ``op``
STEPS = {
    "linear": {"name", "out"},
    "layernorm": {"name", "eps"},
    "normalise": set[str](),
    "gelu": set[str](),
    "gelu_tanh": set[str](),
    "quick_gelu": set[str](),
    "silu": set[str](),
    "relu": set[str](),
    "sigmoid": set[str](),
    "residual": {"steps"},  # what its steps give is added to what they take
}
#: tokens for each of which there is an answer: the patches, or the prefix tokens behind the class token
ROWS = ("patches", "prefix")
ROW_HEADS = ("scores", "boxes")
BOX = 4  #: numbers of a box
TENSORS = ("host_head.", "row_heads.")  #: with which names of tensors begin
Tensor = tuple[str, tuple[int, ...]]


def problems(head: Mapping[str, Any], dim: int, classes: int) -> Iterator[str]:
    """What is wrong with a head on tokens of ``dim`` channels that has to give ``classes`` numbers."""
    if (head["pool"] == "attention") != ("heads" in head) or dim % head.get("heads", 1):
        yield f"the host's head pools by {head['pool']} with {head.get('heads', 'no')} heads"
        return
    yield from _problems(head["steps"], ["pool"], dim * POOLS[head["pool"]], classes, "classes")


def row_problems(heads: Mapping[str, Any], dim: int) -> Iterator[str]:
    """What is wrong with heads for each of some tokens of ``dim`` channels."""
    for name, count in (("scores", len(heads["names"])), ("boxes", BOX)):
        if name in heads:
            yield from _problems(heads[name], [], dim, count, name)


def tensor_table(meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the heads that the host computes: name -> (dtype, shape)."""
    dim, found = meta["architecture"]["dim"], dict[str, Tensor]()
    if head := meta.get("host_head"):
        found |= _tensors(head["steps"], dim * POOLS[head["pool"]], "host_head")
        if "heads" in head:
            found["host_head.pool.score"] = "float32", (dim, head["heads"])
            found["host_head.pool.weight"] = "float32", (dim, dim)
            found["host_head.pool.bias"] = "float32", (dim,)
    rows = meta.get("row_heads", {})
    for name in ROW_HEADS:
        found |= _tensors(rows.get(name, ()), dim, f"row_heads.{name}")
    return found


def _problems(
    steps: Sequence[Mapping[str, Any]], names: list[str], width: int, count: int, what: str
) -> Iterator[str]:
    """Of steps from ``width`` numbers to ``count``, beside tensors of these ``names``."""
    if any("steps" in inner for step in steps for inner in step.get("steps", ())):
        yield "a residual step of the host's head is within another"
        return
    for step in _all(steps):
        if step.keys() - {"op"} != STEPS[step["op"]]:
            yield f"a step {step['op']} of the host's head has {', '.join(sorted(step))}"
            return
        names = [*names, step["name"]] if "name" in step else names
    if len(names) != len(set(names)):
        yield f"steps of the host's head have equal names: {', '.join(names)}"
    for step in steps:
        if "steps" in step and (after := _width(step["steps"], width)) != width:
            yield f"a residual step of the host's head takes {width} numbers and gives {after}"
        width = _width([step], width)
    if width != count:
        yield f"the host's head gives {width} numbers for {count} {what}"


def _all(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The steps, and those within them, which have none."""
    for step in steps:
        yield step
        yield from step.get("steps", ())


def _width(steps: Sequence[Mapping[str, Any]], width: int) -> int:
    """Numbers behind the steps."""
    return next((int(step["out"]) for step in reversed(steps) if "out" in step), width)


def _tensors(steps: Sequence[Mapping[str, Any]], width: int, at: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for step in steps:
        after = _width([step], width)
        if "name" in step:
            shape = (width, after) if "out" in step else (width,)
            found[f"{at}.{step['name']}.weight"] = "float32", shape
            found[f"{at}.{step['name']}.bias"] = "float32", (after,)
        found |= _tensors(step.get("steps", ()), width, at)
        width = after
    return found
