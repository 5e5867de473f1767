# SPDX-License-Identifier: Apache-2.0
"""Descriptions of heads that the host computes from tokens: ``host_head`` of a package or program.

``pool`` is a key of `POOLS`, and ``steps`` is a list of {op, ...}: ``op`` is in `STEPS`, ``name`` is that of
its tensors, ``out`` how many numbers a linear step gives, and ``steps`` are those of a residual step. Pooling
by attention has ``heads``. `rowvit.reference.head` evaluates it.
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
    "residual": {"steps"},  # what its steps give is added to what they take
}
Tensor = tuple[str, tuple[int, ...]]


def problems(head: Mapping[str, Any], dim: int, classes: int) -> Iterator[str]:
    """What is wrong with a head on tokens of ``dim`` channels that has to give ``classes`` numbers."""
    if (head["pool"] == "attention") != ("heads" in head) or dim % head.get("heads", 1):
        yield f"the host's head pools by {head['pool']} with {head.get('heads', 'no')} heads"
        return
    names = ["pool"]
    for step in _all(head["steps"]):
        if step.keys() - {"op"} != STEPS[step["op"]]:
            yield f"a step {step['op']} of the host's head has {', '.join(sorted(step))}"
            return
        names += [step["name"]] if "name" in step else []
    if len(names) != len(set(names)):
        yield f"steps of the host's head have equal names: {', '.join(names[1:])}"
    before = dim * POOLS[head["pool"]]
    for step in head["steps"]:
        if "steps" in step and (after := _width(step["steps"], before)) != before:
            yield f"a residual step of the host's head takes {before} numbers and gives {after}"
        before = _width([step], before)
    if before != classes:
        yield f"the host's head gives {before} numbers for {classes} classes"


def tensor_table(head: Mapping[str, Any], dim: int) -> dict[str, Tensor]:
    """Every tensor of a head: name -> (dtype, shape)."""
    width = dim * POOLS[head["pool"]]
    found = dict(_tensors(head["steps"], width))
    if "heads" in head:
        found["host_head.pool.score"] = "float32", (dim, head["heads"])
        found["host_head.pool.weight"] = "float32", (dim, dim)
        found["host_head.pool.bias"] = "float32", (dim,)
    return found


def _all(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for step in steps:
        yield step
        yield from _all(step.get("steps", ()))


def _width(steps: Sequence[Mapping[str, Any]], width: int) -> int:
    """Numbers behind the steps."""
    return next((int(step["out"]) for step in reversed(steps) if "out" in step), width)


def _tensors(steps: Sequence[Mapping[str, Any]], width: int) -> Iterator[tuple[str, Tensor]]:
    for step in steps:
        after = _width([step], width)
        if "name" in step:
            shape = (width, after) if "out" in step else (width,)
            yield f"host_head.{step['name']}.weight", ("float32", shape)
            yield f"host_head.{step['name']}.bias", ("float32", (after,))
        yield from _tensors(step.get("steps", ()), width)
        width = after
