# SPDX-License-Identifier: Apache-2.0
"""Descriptions (JSON) of packages and programs: ``description.schema.json``, and what no schema can say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import familiar, tokens
from rowvit.formats import head as heads
from rowvit.hardware.isa import MAX_IMAGES

SCHEMA = Path(__file__).with_name("description.schema.json")
MAX_K = 1024  #: scalars of a product, at most
MAX_HEADS = 16  #: of a network that drops tokens
COORDINATES = 32  #: of rotary positions, at most
RULES = ("none", "image", "tile")
_LANES = 16  # of a group, at least
#: pixels of an image: the side of a square, or height and width
Size = int | tuple[int, int]
#: sizes of a network: name -> (lowest, highest); an accelerator holds less
ARCHITECTURE = {
    "image_size": (1, 8192),  # its height; of a rectangle there is an image_width, too, with the same limits
    "patch_size": (1, 1024),
    "channels": (3, 3),  # RGB
    "dim": (1, 65535),  # as what follows, at most what a slot of an instruction holds
    "depth": (1, 255),  # tags of records have 8 bits
    "heads": (1, 65535),
    "hidden": (1, 65535),
    "classes": (0, 65535),  # 0: it answers with tokens only
    "prefix": (0, 65535),
    "tokens": (2, 8192),  # whose attention the integer reference computes at once
}
#: scalar parameters: name -> (lowest, highest)
NETWORK_PARAMS = {"patch.shift": (1, 40)}
HEAD_PARAMS = {"norm.shift": (0, 31), "head.shift": (1, 40)}  # of a network with classes
PRE_PARAMS = {"pre_norm.shift": (0, 31), "pre.shift": (1, 40)}  # of one with a LayerNorm before its blocks
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
    "thr": (1, 255),  # 1 in a gated FFN
    "fc2.shift": (1, 40),
}


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return size if isinstance(size, tuple) else (size, size)


def image_shape(arch: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images that a network takes, by its "architecture"."""
    return arch["image_size"], arch.get("image_width") or arch["image_size"]


def layer_names(meta: Mapping[str, Any]) -> list[str]:
    """Names of embedding, layers and head, by the description of a package or program."""
    return ["embed", *map(str, range(meta["architecture"]["depth"])), "head"]


def image_keys(size: Size) -> dict[str, int]:
    """What an "architecture" says of images of this size: nothing about the width of a square."""
    height, width = sides(size)
    return {"image_size": height} | ({"image_width": width} if width != height else {})


def lanes_each(meta: Mapping[str, Any]) -> int:
    """Channels of FFN1 for each hidden neuron of a package or program: with its gate, two."""
    return 2 if "gated" in meta else 1


def in_places(neurons: NDArray[Any], each: int) -> NDArray[Any]:
    """Values of hidden neurons [..., F], or rows of W2, in the last of ``each`` places: [..., each * F], the
    other ones 0.
    """
    if each == 1:
        return neurons
    places = np.zeros((*neurons.shape, each), neurons.dtype)
    places[..., -1] = neurons
    return places.reshape(*neurons.shape[:-1], -1)


def square_side(arch: Mapping[str, Any]) -> float:
    """The side of a square of as many pixels as a network's image has."""
    return math.sqrt(math.prod(image_shape(arch)))


@cache
def _validator(kind: str) -> Callable[[Any], Any]:
    schema = json.loads(SCHEMA.read_text())
    schema["definitions"]["rule"] = {"enum": list(RULES)}
    architecture = _integers(ARCHITECTURE)
    architecture["properties"]["image_width"] = _integer(*ARCHITECTURE["image_size"])
    schema["definitions"]["architecture"] = architecture
    schema["definitions"]["images"] = _integer(1, MAX_IMAGES)
    schema["definitions"]["coordinates"] = _integer(1, COORDINATES)
    layers = {"type": "array", "items": _integers(LAYER_PARAMS)}
    schema["definitions"]["token_rows"] = {"enum": list(tokens.ROWS)}
    schema["definitions"]["head_pool"] = {"enum": list(heads.POOLS)}
    schema["definitions"]["head_step"] = {"enum": list(heads.STEPS)}
    schema["definitions"]["head_rows"] = {"enum": list(heads.ROWS)}
    params = _integers(NETWORK_PARAMS, layers=layers)
    params["properties"] |= {name: _integer(*limits) for name, limits in (HEAD_PARAMS | PRE_PARAMS).items()}
    schema["definitions"]["params"] = params
    return fastjsonschema.compile(schema | {"$ref": f"#/definitions/{kind}"})


def _integers(ranges: dict[str, tuple[int, int]], **others: Any) -> dict[str, Any]:
    """Schema of an object that has integers in ``ranges``, and ``others``."""
    found = {name: _integer(*limits) for name, limits in ranges.items()} | others
    return {"type": "object", "required": list(found), "properties": found}


def _integer(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


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
            return f"{what} lacks {f'{where}.' if where else ''}{missing}"
        rule = error.message.removeprefix(str(error.name)).strip()
        return f"{what}'s {where or 'value'} is {repr(error.value)[:60]}, but {rule}"
    return ""


def _disagreements(meta: dict[str, Any], kind: str) -> list[str]:
    """Sizes that do not agree with each other."""
    arch, found = meta["architecture"], []
    patches = math.prod(side // arch["patch_size"] for side in image_shape(arch))
    whole = all(side % arch["patch_size"] == 0 for side in image_shape(arch))
    if not whole or arch["tokens"] != arch["prefix"] + patches:
        found.append("image size, patch size, prefix and tokens do not agree")
    if arch["dim"] % arch["heads"]:
        found.append("dim is not a multiple of heads")
    if "rotary" in meta and arch["dim"] // arch["heads"] % 4:
        found.append("rotary positions take four channels of a head at a time")
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
    if len(meta["classes"]) != arch["classes"] and "host_head" not in meta:
        found.append(f"{len(meta['classes'])} class names for {arch['classes']} classes")
    found += _disagreements_of_outputs(meta, kind)
    layers = [step["layer"] for step in meta["pruning"]]
    if layers != sorted(set(layers)) or any(layer >= arch["depth"] for layer in layers):
        found.append(f"pruning layers {layers} are not ascending in 0..{arch['depth'] - 1}")
    if kind == "program":
        return found or [*_disagreements_of_program(meta)]
    if "gated" in meta and any(layer["thr"] != 1 for layer in meta["params"]["layers"]):
        found.append("a gated FFN has no threshold: thr is 1")
    if len(meta["params"]["layers"]) != arch["depth"]:
        found.append(f"params of {len(meta['params']['layers'])} layers for depth {arch['depth']}")
    return found


def _disagreements_of_outputs(meta: dict[str, Any], kind: str) -> Iterator[str]:
    """Of what the network answers with."""
    arch, after = meta["architecture"], tokens.layers(meta)
    if after != sorted(set(after)) or any(layer >= arch["depth"] for layer in after):
        yield f"tokens.layers {after} are not ascending in 0..{arch['depth'] - 1}"
    if not arch["classes"] and arch["depth"] - 1 not in after:
        yield "a network without classes answers with the tokens behind its last layer"
    if not arch["prefix"]:
        if arch["classes"] or meta["pruning"]:
            yield "there is no class token for the head, or by whose attention tokens could be dropped"
        elif after and meta["tokens"]["rows"] != "all":
            yield "there is no class token to answer with"
    head = meta.get("host_head")
    if head and not arch["prefix"] and head["pool"].startswith("class"):
        yield f"there is no class token for the head's pool {head['pool']}"
    if head:
        if arch["classes"] or not meta["classes"]:
            yield "a head on the host takes the tokens behind the last layer, and has classes of its own"
        elif head["pool"] != "class" and after and meta["tokens"]["rows"] != "all":
            yield f"the head's pool {head['pool']} takes all tokens"
        yield from heads.problems(head, arch["dim"], len(meta["classes"]))
    if "row_heads" in meta:
        if arch["depth"] - 1 not in after or meta["tokens"]["rows"] != "all" or not tokens.normalised(meta):
            yield "heads of rows take all tokens behind the last layer, and its LayerNorm"
        if meta["row_heads"]["rows"] == "prefix" and (arch["prefix"] < 2 or meta["pruning"]):
            yield "heads of prefix tokens take ones behind the class token, of which none may be dropped"
        yield from heads.row_problems(meta["row_heads"], arch["dim"])
    if "familiar" in meta:
        yield from familiar.problems(meta)
    if after and not tokens.normalised(meta) and meta["tokens"]["rows"] != "all":
        yield "tokens as they are in the residual stream are all of them"
    if ("layout" in meta.get("tokens", ())) != (bool(after) and kind == "program"):
        yield "tokens.layout belongs to a program"
    needed = {"logit": arch["classes"], "tokens": after, "norm": "familiar" in meta}
    yield from (
        f"scales lack {name}" for name, is_there in needed.items() if is_there and name not in meta["scales"]
    )
    if kind == "package":
        names = [*(HEAD_PARAMS if arch["classes"] else ()), *(PRE_PARAMS if "pre_norm" in meta else ())]
        yield from (f"params lack {name}" for name in names if name not in meta["params"])


def _disagreements_of_program(meta: dict[str, Any]) -> Iterator[str]:
    """Of what only a program has."""
    arch, given = meta["architecture"], meta["input"]
    row_words = -(-arch["channels"] * arch["patch_size"] ** 2 // 8)
    if (given["rows"], given["row_words"]) != (arch["tokens"] - arch["prefix"], row_words):
        yield "input: rows and row_words are not those of the patches"
    if given["bytes"] != 8 * given["rows"] * given["row_words"]:
        yield "input: rows, row_words and bytes do not agree"
    if meta["passes"][0]["images"] != 1:
        yield f"passes.0 runs {meta['passes'][0]['images']} images, not 1"
    least, most = _answer_bytes(meta)
    for number, part in enumerate(meta["passes"]):
        images, shares = part["images"], part["shares"]
        if len(shares) != arch["depth"]:
            yield f"passes.{number} has {len(shares)} shares for depth {arch['depth']}"
        if any(after % before for before, after in pairwise([*shares, images])):
            yield (
                f"passes.{number} has shares {shares[:8]} that do not divide those of the next layer, or"
                f" its {images} images"
            )
        if not images * least <= part["output_bytes"] <= images * most:
            yield (
                f"passes.{number} has output_bytes {part['output_bytes']}, but its records take"
                f" {images * least} to {images * most}"
            )
        operations, instructions = len(part["operations"]), part["instructions"]
        if operations != instructions - 2:
            yield f"passes.{number} has {operations} operations for {instructions} instructions"
        if any(operation["layer"] > arch["depth"] for operation in part["operations"]):
            yield f"passes.{number} has operations beyond the network's {arch['depth']} layers"


def _answer_bytes(meta: dict[str, Any]) -> tuple[int, int]:
    """The least and the most bytes of an image's records: the lanes decide how many those of logits are."""
    arch, keep = meta["architecture"], {step["layer"]: step["keep"] for step in meta["pruning"]}
    live, after = arch["tokens"], tokens.layers(meta)
    layout = tokens.Layout(*meta["tokens"]["layout"]) if after else None
    states = [live]  # rows of the residual stream, after the embedding and after each half layer
    size = 16 * (arch["depth"] + 1)
    for layer in range(arch["depth"]):
        if layer in keep:
            live = min(live, keep[layer] + 1)
            size += 8 + 8 * -(-live // 4)
        states += [live, live]
        if layout and layer in after and not tokens.normalised(meta):
            size += 8 + 2 * arch["dim"] * live if not meta["checkpoints"] else 0
        elif layout and layer in after:
            size += 8 + layout.payload(tokens.count(meta, live), arch["dim"])
    if meta["checkpoints"]:
        size += sum(8 + 2 * arch["dim"] * rows for rows in states)
    size += 8 * -(-arch["classes"] // 4)
    return size + 8 * bool(arch["classes"]), size + 8 * -(-arch["classes"] // _LANES)
