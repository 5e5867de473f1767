# SPDX-License-Identifier: Apache-2.0
"""Descriptions of heads that the host computes from tokens: ``host_head`` of a package or program.

``pool`` is a key of `POOLS`, and ``steps`` is a list of {op, name, out}: ``op`` is in `STEPS`, ``name`` is
that of its tensors, if it has any, and ``out`` is how many numbers a linear step gives.
`rowvit.reference.head` evaluates it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: what is taken of the tokens -> how often their channels: the class token, the mean of the patches, both
POOLS = {"class": 1, "mean": 1, "class-mean": 2}
#: what a step does -> the fields of its description besides ``op``
STEPS = {"linear": {"name", "out"}, "layernorm": {"name"}, "normalise": set[str]()}


def problems(head: Mapping[str, Any], dim: int, classes: int) -> Iterator[str]:
    """What is wrong with a head on tokens of ``dim`` channels that has to give ``classes`` numbers."""
    for step in head["steps"]:
        if step.keys() - {"op"} != STEPS[step["op"]]:
            yield f"a step {step['op']} of the host's head has {', '.join(sorted(step))}"
            return
    width = (dim * POOLS[head["pool"]], *(step["out"] for step in head["steps"] if "out" in step))[-1]
    if width != classes:
        yield f"the host's head gives {width} numbers for {classes} classes"


def tensor_table(head: Mapping[str, Any], dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of a head: name -> (dtype, shape)."""
    width = dim * POOLS[head["pool"]]
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for step in head["steps"]:
        after = step.get("out", width)
        if "name" in step:
            shape = (width, after) if "out" in step else (width,)
            found[f"host_head.{step['name']}.weight"] = "float32", shape
            found[f"host_head.{step['name']}.bias"] = "float32", (after,)
        width = after
    return found
