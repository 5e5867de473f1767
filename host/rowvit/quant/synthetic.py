# SPDX-License-Identifier: Apache-2.0
"""Networks of random weights, made directly in integers: workloads without a meaningful accuracy.

``python -m rowvit.quant.synthetic --preset deit-tiny -o deit-tiny.safetensors`` writes a network of
DeiT-Tiny's size; ``--dense`` writes the same one without token pruning and without FFN2 skipping.
The same seed gives the same file. NumPy only.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

from rowvit.errors import RowvitError
from rowvit.formats.description import HEAD_PARAMS, LAYER_PARAMS, NETWORK_PARAMS, PRE_PARAMS, image_keys
from rowvit.formats.package import BIAS_LIMIT, FORMAT, ModelPackage, keep_schedule, tensor_table
from rowvit.quant.fixed import multiplier, rotations
from rowvit.reference.attention import ROTATED_BITS

#: architectures by name
PRESETS: dict[str, dict] = {
    "deit-tiny": dict(dim=192, depth=12, heads=3, hidden=768, ffn_chunk=384, patch_size=16),
    "deit-small": dict(dim=384, depth=12, heads=6, hidden=1536, ffn_chunk=384, patch_size=16),
    "vit-small-14": dict(dim=384, depth=12, heads=6, hidden=1536, ffn_chunk=192, patch_size=14),
}

_WEIGHT = 40.0  # standard deviations, in integer units
_NORM = 32.0
_RESIDUAL = 2000.0
_PIXEL = 74.0
_GATE_FINER = 5  # bits of gates, beyond those of hidden activations


def random_package(
    rng: np.random.Generator,
    *,
    dim: int,
    depth: int,
    heads: int,
    image_size: int,
    patch_size: int,
    hidden: int,
    classes: int,
    prefix: int = 1,
    pruning: Sequence[dict] = (),
    ffn2_rule: str = "image",
    tile_rows: int = 16,
    ffn_chunk: int | None = None,
    thr: int = 1,
    columns: float = 0.5,
    rare: float = 0.0,
    extreme: bool = False,
    tokens: dict | None = None,
    pre_norm: bool = False,
    rotary: bool = False,
    gated: bool = False,
    image_width: int | None = None,
    name: str = "random",
) -> ModelPackage:
    """A network whose activations use their ranges well.

    Parameters
    ----------
    rng : numpy Generator
    dim, depth, heads, image_size, patch_size, hidden, classes, prefix : int
        Architecture; three channels, and ``prefix`` tokens before the patches, of which the first is the
        class token.
    pruning : sequence of {layer, keep, threshold}
    ffn2_rule, tile_rows, ffn_chunk, thr
        As in the package; ``ffn_chunk`` is by default the whole of ``hidden`` (at most 1024). With gates the
        chunk is half of it.
    columns : float
        Share of hidden neurons that are ever active, each for about half of the tokens.
    rare : float
        Share of these that are active for few tokens only, as after training: for one in 6 to one in 700, or,
        every second neuron, for the image's last token or another one, whose position they look for.
    tokens : {rows, layers}, optional
        With which tokens the network answers, as in the package.
    pre_norm : bool
        Whether there is a LayerNorm before the blocks.
    rotary : bool
        Whether positions are rotary: rows and columns of patches have angles of their own, up to half a turn.
    gated : bool
        Whether the FFN is gated; ``thr`` is 1 then.
    image_width : int, optional
        By default the image is a square; else ``image_size`` is its height.
    extreme : bool
        Random tensors and shifts are set to the ends of their ranges, so that every saturation occurs.
    name : str
    """
    width = image_width or image_size
    arch = image_keys((image_size, width)) | dict(patch_size=patch_size, channels=3)
    arch |= dict(dim=dim, depth=depth, heads=heads, hidden=hidden, classes=classes, prefix=prefix)
    arch["tokens"] = prefix + (image_size // patch_size) * (width // patch_size)
    params: dict = {"layers": [{"thr": thr, "pv_shift": 15} for _ in range(depth)]}
    tensors: dict[str, np.ndarray] = {}
    patch_k = tensor_table(arch)["patch.weight"][1][0]

    def normal(std: float, shape: int | tuple[int, ...], limit: int) -> np.ndarray:
        return np.clip(np.round(rng.normal(0.0, std, shape)), -limit, limit)

    def linear(where: dict, key: str, path: str, out: int, acc_std: float, target: float, k: int) -> None:
        """A layer whose accumulators have ``acc_std`` and whose results get about ``target``."""
        spread = rng.uniform(0.8, 1.25, out)  # channels differ in scale
        tensors[f"{path}.weight"] = normal(_WEIGHT, (k, out), 127).astype(np.int8)
        tensors[f"{path}.mult"], where[f"{key}.shift"] = multiplier(target / acc_std * spread)
        if path != "patch":
            tensors[f"{path}.bias"] = np.round(rng.normal(0.0, 0.1 * acc_std, out)).astype(np.int32)

    def norm(where: dict, key: str, path: str) -> None:
        tensors[f"{path}.g"] = np.round(rng.normal(64.0, 8.0, dim)).astype(np.int16)
        tensors[f"{path}.b"] = np.round(rng.normal(0.0, 8192.0, dim)).astype(np.int32)
        where[f"{key}.shift"] = 11  # 10 fraction bits of z and 1.0 = 64 for g give a deviation of 32

    linear(params, "patch", "patch", dim, math.sqrt(patch_k) * _PIXEL * _WEIGHT, 0.7 * _RESIDUAL, patch_k)
    tensors["pos"] = normal(0.7 * _RESIDUAL, (arch["tokens"], dim), 32767).astype(np.int16)
    for i, layer in enumerate(params["layers"]):
        path = f"layers.{i}"
        norm(layer, "norm1", f"{path}.norm1")
        for part in "qkv":
            linear(layer, part, f"{path}.{part}", dim, math.sqrt(dim) * _NORM * _WEIGHT, 32.0, dim)
        # logits with a deviation of two octaves
        s_mult, layer["s_shift"] = multiplier(64.0 / (math.sqrt(dim // heads) * 32.0**2))
        layer["s_mult"] = int(s_mult)
        linear(layer, "proj", f"{path}.proj", dim, math.sqrt(dim) * 20.0 * _WEIGHT, 500.0, dim)
        norm(layer, "norm2", f"{path}.norm2")
        acc_std = math.sqrt(dim) * _NORM * _WEIGHT
        linear(layer, "fc1", f"{path}.fc1", hidden, acc_std, 60.0, dim)
        silent = rng.random(hidden) >= columns
        tensors[f"{path}.fc1.bias"][silent] = round(-6.0 * acc_std)
        if rare:
            few = np.flatnonzero((rng.random(hidden) < rare) & ~silent)
            tensors[f"{path}.fc1.bias"][few] = np.round(rng.uniform(-3.0, -1.0, few.size) * acc_std)
            some = few[::2]
            own = np.where(rng.random(some.size) < 0.5, -1, rng.integers(0, arch["tokens"], some.size))
            position = tensors["pos"][own].T / (0.7 * _RESIDUAL)
            tensors[f"{path}.fc1.weight"][:, some] = np.clip(np.round(_WEIGHT * position), -127, 127)
        acc_std = math.sqrt(0.5 * max(columns * hidden, 1)) * 60.0 * _WEIGHT
        linear(layer, "fc2", f"{path}.fc2", dim, acc_std, 500.0, hidden)
    if classes:
        norm(params, "norm", "norm")
        linear(params, "head", "head", classes, math.sqrt(dim) * _NORM * _WEIGHT, _RESIDUAL, dim)
    if pre_norm:
        norm(params, "pre_norm", "pre_norm")
        factor = _RESIDUAL / (127 * _NORM) * rng.uniform(0.8, 1.25, dim)
        tensors["pre.mult"], params["pre.shift"] = multiplier(factor)
    grid = image_size // patch_size, width // patch_size
    if rotary:
        tensors["rope.table"], tensors["rope.places"] = _turns(grid, prefix, dim // heads // 4)
        for layer in params["layers"]:
            for part in "qk":
                layer[f"{part}.shift"] = max(1, layer[f"{part}.shift"] - ROTATED_BITS)
    answer: dict = {}
    if tokens:
        norm(answer, "tokens", "tokens")
        answer = tokens | {"shift": answer["tokens.shift"] - 6}

    if extreme:
        _push(rng, tensors, params)
    rules = dict(ffn2_rule=ffn2_rule, tile_rows=tile_rows, ffn_chunk=ffn_chunk or hidden)
    meta = _describe(name, arch, pruning, rules, params)
    if answer:
        meta |= {"tokens": answer, "scales": meta["scales"] | {"tokens": 2.0**-11}}
    if pre_norm:
        meta["pre_norm"] = True
    if rotary:
        meta["rotary"] = {"coordinates": len(tensors["rope.table"])}
    package = ModelPackage(meta, tensors)
    if gated:
        package = with_gates(rng, package)
    package.check(name)
    return package


def _turns(grid: tuple[int, int], prefix: int, frequencies: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines [coordinates, frequencies, 2], those of a square's rows and columns once, and the
    coordinates [tokens, 2].
    """
    along = np.concatenate([[0.0], *((np.arange(n) + 0.5) / n for n in grid)])
    places, number = np.unique(along, return_inverse=True)
    patches = np.indices(grid).reshape(2, -1).T + np.array([1, 1 + grid[0]])
    tokens = np.concatenate([np.zeros((prefix, 2), np.int64), patches])
    angles = np.pi * places[:, None] * 2.0 ** -np.arange(frequencies)
    return rotations(angles), number[tokens].astype(np.uint8)


def with_gates(rng: np.random.Generator, package: ModelPackage) -> ModelPackage:
    """The network with a gated FFN: its hidden neurons become gates of what others of them were.

    Chunks of FFN2 have half as many of them, as each takes two lanes.
    """
    meta, tensors = package.meta | {"gated": True}, dict(package.tensors)
    meta["params"] = dict(meta["params"])
    meta["ffn_chunk"] = max(1, meta["ffn_chunk"] // 2)
    for i in range(package.arch["depth"]):
        order = rng.permutation(package.arch["hidden"])
        for part in ("weight", "bias", "mult"):
            gates = tensors[f"layers.{i}.fc1.{part}"]
            both = np.stack([gates, gates[..., order]], axis=-1)
            tensors[f"layers.{i}.fc1.{part}"] = both.reshape(*gates.shape[:-1], -1)
    meta["params"]["layers"] = [  # products about as large as the activations were
        layer | {"thr": 1, "fc1.shift": max(1, layer["fc1.shift"] - _GATE_FINER)}
        for layer in meta["params"]["layers"]
    ]
    return ModelPackage(meta, tensors)


def filler_package(
    name: str,
    arch: dict,
    pruning: Sequence[dict],
    rules: dict,
    rotary: bool = False,
    gated: bool = False,
    pre_norm: bool = False,
) -> ModelPackage:
    """A network of any bytes: it has its size, computes nothing of use, and takes little time to make.

    ``arch`` and ``pruning`` are as in a package, ``rules`` its ``ffn2_rule``, ``tile_rows`` and
    ``ffn_chunk``. Without classes it answers with all tokens of its last layer.
    """
    rng, tensors = np.random.default_rng(0), {}
    coordinates, tokens = 2 if rotary else 0, not arch["classes"]
    table = tensor_table(arch, tokens, pre_norm, coordinates, each=1 + gated)
    for path, (dtype, shape) in table.items():
        kind = np.dtype(dtype)
        tensor = np.frombuffer(rng.bytes(math.prod(shape) * kind.itemsize), kind).reshape(shape)
        if path.endswith(".weight"):
            tensor = np.maximum(tensor, -127)
        elif path.endswith(".bias"):
            tensor = tensor % BIAS_LIMIT
        elif path.startswith("rope."):
            tensor = tensor % coordinates
        tensors[path] = tensor
    limits = LAYER_PARAMS, NETWORK_PARAMS | ({} if tokens else HEAD_PARAMS) | (PRE_PARAMS if pre_norm else {})
    layer, own = ({key: low for key, (low, _) in p.items()} for p in limits)
    params = {**own, "layers": [layer] * arch["depth"]}
    meta = _describe(name, arch, pruning, rules, params)
    if tokens:
        meta["tokens"] = {"rows": "all", "layers": [arch["depth"] - 1], "shift": 0}
        meta["scales"] |= {"tokens": 2.0**-11}
    meta |= {"rotary": {"coordinates": coordinates}} if rotary else {}
    meta |= {name: True for name, has in (("gated", gated), ("pre_norm", pre_norm)) if has}
    package = ModelPackage(meta, tensors)
    package.check(name)
    return package


def _describe(name: str, arch: dict, pruning: Sequence[dict], rules: dict, params: dict) -> dict:
    return {
        "format": FORMAT,
        "name": name,
        "architecture": arch,
        "preprocessing": {"resize": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
        "classes": [str(index) for index in range(arch["classes"])],
        "pruning": [dict(step) for step in pruning],
        **rules,
        "params": params,
        "scales": {"logit": 2.0**-9},
        "licence": "CC0-1.0",
        "source": "random numbers (rowvit.quant.synthetic)",
        "accuracy": {},
    }


def _push(rng: np.random.Generator, tensors: dict[str, np.ndarray], params: dict) -> None:
    """Replace half of the tensors and shifts, at random, by values at the ends of their ranges."""
    for name, tensor in tensors.items():
        if name.startswith("rope.") or rng.random() < 0.5:  # whose ranges are narrower
            continue
        if name.endswith(".weight"):
            ends = np.array([-127, 127, 0])
            picked = ends[rng.integers(0, 3, tensor.shape)]
            constant = rng.random(tensor.shape[-1]) < 0.25  # these columns reach the largest accumulator
            picked[:, constant] = ends[rng.integers(0, 2, constant.sum())]
        elif name.endswith(".bias"):
            picked = rng.choice([-BIAS_LIMIT, BIAS_LIMIT - 1, 0, -1], tensor.shape)
        else:
            info = np.iinfo(tensor.dtype)
            picked = rng.choice([info.min, info.max, 0, 1], tensor.shape)
            keep = rng.random(tensor.shape) < 0.5
            picked = np.where(keep, tensor, picked)
        tensors[name] = picked.astype(tensor.dtype)
    for where in [params, *params["layers"]]:
        for key in [key for key in where if key.endswith("shift") and rng.random() < 0.25]:
            low, high = (LAYER_PARAMS | NETWORK_PARAMS | HEAD_PARAMS | PRE_PARAMS)[key]
            where[key] = int(rng.choice([low, high, rng.integers(low, high + 1)]))
    for layer in params["layers"]:
        if rng.random() < 0.25:
            layer["s_mult"] = int(rng.choice([0, 1, 65535]))
        if rng.random() < 0.25:
            layer["thr"] = int(rng.choice([1, 2, 128, 255]))


def preset_package(preset: str, dense: bool = False, seed: int = 2025) -> ModelPackage:
    """A network of a known size: 224 pixels, 1000 classes, 197 tokens (patch 16) or 257 (patch 14).

    After attention of blocks 3, 6 and 9 half of the patches stay: of 197 tokens 99, 50,
    and 26. 40 % of the hidden neurons are active, each for about half of the tokens, so that about
    20 % of the hidden activations and 40 % of the rows of W2 remain.

    Parameters
    ----------
    preset : str
        A key of `PRESETS`.
    dense : bool
        Without token pruning, and with ``ffn2_rule`` "none"; the weights are the same.
    seed : int
    """
    side = 224
    patches = (side // PRESETS[preset]["patch_size"]) ** 2
    return random_package(
        np.random.default_rng(seed),
        **PRESETS[preset],
        image_size=side,
        classes=1000,
        pruning=[] if dense else keep_schedule(patches, (3, 6, 9), 0.5),
        ffn2_rule="none" if dense else "image",
        columns=0.4,
        name=preset + ("-dense" if dense else "-pruned"),
    )


def main() -> None:
    """Command line of ``python -m rowvit.quant.synthetic``."""
    parser = argparse.ArgumentParser(prog="python -m rowvit.quant.synthetic", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="deit-tiny")
    parser.add_argument("--dense", action="store_true", help="no token pruning, no FFN2 skipping")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    try:
        preset_package(args.preset, args.dense, args.seed).save(args.output)
    except RowvitError as error:
        parser.error(str(error))
    print(f"{args.output}: written")


if __name__ == "__main__":
    main()
