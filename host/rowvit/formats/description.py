# SPDX-License-Identifier: Apache-2.0
"""Descriptions (JSON) of packages and programs: ``description.schema.json``, and what no schema can say."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

from rowvit.errors import RowvitError

SCHEMA = Path(__file__).with_name("description.schema.json")
MAX_K = 1024  #: scalars of a product, at most
MAX_HEADS = 15  #: of a network that drops tokens
RULES = ("none", "image", "tile")
#: scalar parameters: name -> (lowest, highest)
NETWORK_PARAMS = {"patch.shift": (1, 40), "norm.shift": (0, 31), "head.shift": (1, 40)}
LAYER_PARAMS = {
    "norm1.shift": (0, 31),
    "q.shift": (1, 40),
    "k.shift": (1, 40),
    "v.shift": (1, 40),
    "s_mult": (0, 65535),
    "s_shift": (1, 40),
    "pv_shift": (8, 16),
    "proj.shift": (1, 40),
    "norm2.shift": (0, 31),
    "fc1.shift": (1, 40),
    "thr": (1, 255),
    "fc2.shift": (1, 40),
}


@cache
def _validator(kind: str) -> Callable[[Any], Any]:
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["rule"] = {"enum": list(RULES)}
    layers = {"type": "array", "items": _integers(LAYER_PARAMS)}
    schema["definitions"]["params"] = _integers(NETWORK_PARAMS, layers=layers)
    return fastjsonschema.compile(schema | {"$ref": f"#/definitions/{kind}"})


def _integers(ranges: dict[str, tuple[int, int]], **others: Any) -> dict[str, Any]:
    """Schema of an object that has integers in ``ranges``, and ``others``."""
    found = {
        name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in ranges.items()
    } | others
    return {"type": "object", "required": list(found), "properties": found}


def check(meta: Any, kind: str, name: str) -> None:
    """Check a description.

    Parameters
    ----------
    meta : Any
        What was read from JSON.
    kind : str
        "package" or "program".
    name : str
        Of the file, with which the message starts.

    Raises
    ------
    RowvitError
        Something is missing, has another type or is out of its range, or sizes do not agree.
    """
    if problem := violation(_validator(kind), meta, "the description"):
        raise RowvitError(f"{name}: {problem}")
    for problem in _disagreements(meta, kind):
        raise RowvitError(f"{name}: the description: {problem}")


def violation(validate: Callable[[Any], Any], value: Any, what: str) -> str:
    """How a value breaks a schema of fastjsonschema, in a sentence about ``what``; empty if it does not."""
    try:
        validate(value)
    except fastjsonschema.JsonSchemaValueException as error:
        where = ".".join(str(part) for part in error.path[1:])
        if error.rule == "required":
            missing = next(key for key in error.rule_definition if key not in error.value)
            return f"{what} lacks {f'{where}.' * bool(where)}{missing}"
        rule = error.message.removeprefix(str(error.name)).strip()
        return f"{what}'s {where or 'value'} is {repr(error.value)[:60]}, but {rule}"
    return ""


def _disagreements(meta: dict[str, Any], kind: str) -> list[str]:
    """Sizes that do not agree with each other."""
    arch, found = meta["architecture"], []
    grid = arch["image_size"] // arch["patch_size"]
    if arch["image_size"] % arch["patch_size"] or arch["tokens"] != arch["prefix"] + grid * grid:
        found.append("image size, patch size, prefix and tokens do not agree")
    if arch["dim"] % arch["heads"]:
        found.append("dim is not a multiple of heads")
    if arch["heads"] > MAX_HEADS and meta["pruning"]:
        found.append(f"more than {MAX_HEADS} heads overflow the token scores, by which tokens are dropped")
    for what, k in (("ffn_chunk", meta["ffn_chunk"]), ("dim", arch["dim"])):
        if k > MAX_K:
            found.append(f"{what} of {k} scalars overflows; the limit is {MAX_K}")
    for key in ("mean", "std"):
        if len(meta["preprocessing"][key]) != arch["channels"]:
            found.append(f"preprocessing.{key} is not of {arch['channels']} channels")
    if meta["ffn2_rule"] == "tile" and meta["tile_rows"] < 1:
        found.append("the rule 'tile' needs tile_rows of 1 or more")
    if len(meta["classes"]) != arch["classes"]:
        found.append(f"{len(meta['classes'])} class names for {arch['classes']} classes")
    layers = [step["layer"] for step in meta["pruning"]]
    if layers != sorted(set(layers)) or any(layer >= arch["depth"] for layer in layers):
        found.append(f"pruning layers {layers} are not ascending in 0..{arch['depth'] - 1}")
    if kind == "package":
        if len(meta["params"]["layers"]) != arch["depth"]:
            found.append(f"params of {len(meta['params']['layers'])} layers for depth {arch['depth']}")
        return found
    for number, part in enumerate(meta["passes"]):
        if len(part["shares"]) != arch["depth"]:
            found.append(f"passes.{number} has {len(part['shares'])} shares for depth {arch['depth']}")
        operations, instructions = len(part["operations"]), part["instructions"]
        if operations != instructions - 2:
            found.append(f"passes.{number} has {operations} operations for {instructions} instructions")
        if any(operation["layer"] > arch["depth"] for operation in part["operations"]):
            found.append(f"passes.{number} has operations beyond the network's {arch['depth']} layers")
    if meta["input"]["bytes"] != 8 * meta["input"]["rows"] * meta["input"]["row_words"]:
        found.append("input: rows, row_words and bytes do not agree")
    return found
