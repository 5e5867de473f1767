# SPDX-License-Identifier: Apache-2.0
"""The model package: everything integer that a network needs, in one safetensors file.

``meta`` (the file's metadata key ``rowvit``, as JSON):

=================  ========================================================================================
format             1
name               name of the network
architecture       image_size, patch_size, channels, dim, depth, heads, hidden (neurons), classes, prefix,
                   tokens (of prefix and patches); of images that are no squares image_size is the height,
                   and there is image_width
preprocessing      resize ("bicubic" or "bilinear"), crop (which share of the sides of the largest
                   middle square, or rectangle of that shape, is scaled; 1 if absent), mean and std of
                   pixels in 0..1 (informative)
classes            class names; none: the network answers with tokens only
pre_norm           true: it has a LayerNorm before its blocks (optional)
gated              true: its FFN is gated (optional)
rotary             its positions are rotary (optional): coordinates, how many different ones there are
taught             its head was taught (optional): photos, of which is kept what it sees, if any are, and
                   recordings, of which they are, if several are of one; before (true), if it says how photos
                   of the classes vary that the network had before
familiar           how far from its classes a photo is something else (optional); see
                   `rowvit.formats.familiar`
tokens             with which tokens it answers (optional): rows ("class" or "all"), layers (0-based) behind
                   which, and the shift of their LayerNorm; without it they are all rows of the residual
                   stream, as they are
host_head          a head that the host computes from the tokens behind the last layer (optional); see
                   `rowvit.formats.head`. Then ``classes`` are its own, and the architecture has none
row_heads          heads that the host computes for each of some tokens behind the last layer (optional)
pruning            list of {layer (0-based, ascending), keep (besides token 0), threshold (20 fraction bits)}
ffn2_rule          "none", "image" or "tile"; with "tile", ``tile_rows`` rows make a tile
ffn_chunk          hidden neurons per chunk of the second FFN layer
params             shifts and scalar multipliers, by keys that have the dot: patch.shift, layers (a list, of
                   each norm1.shift, q.shift, k.shift, v.shift, s_mult, s_shift, pv_shift, proj.shift,
                   norm2.shift, fc1.shift, thr, fc2.shift), with classes norm.shift and head.shift, with
                   ``pre_norm`` pre_norm.shift and pre.shift
scales             float value of one unit of residual, logits, ... (informative)
licence, source    of the network, as its card has them
accuracy           measured accuracy, with its test set (informative)
history            what was done to the network, one line per step (optional)
hash               SHA-256 over all of the above and the tensors
=================  ========================================================================================

Tensors: patch.weight int8 [K, D] (k in the order py, px, channel), patch.mult uint16 [D], pos int16
[N, D]; per layer ``layers.{i}.``: norm1 and norm2 (.g int16, .b int32 [D]), q, k, v, proj, fc1, fc2
(.weight int8 [in, out], .bias int32 [out], .mult uint16 [out]), of a gated FFN with two channels of fc1
for every hidden neuron, the gate first; with classes norm (.g, .b) and head (.weight, .bias, .mult);
with normalised tokens tokens (.g, .b); with ``pre_norm`` pre_norm (.g, .b) and
pre.mult uint16 [D]; with ``rotary`` rope.table int16 [coordinates, hd / 4, 2], cosines and sines with
14 fraction bits, and rope.places uint8 [N, 2], of every token (prefix first) two indices into it, for
even and for odd pairs of channels; with ``taught``, if it has ``photos``, taught.seen int8 [photos, D], what
the head sees of each photo, and taught.labels uint16 [photos], their classes; if it has ``recordings``,
taught.recordings uint16 [photos], which of them belong together; if it has ``before``, taught.before float32
[D, D], a covariance; with ``host_head`` and ``row_heads`` those of `formats.head`. Head h of attention owns
channels h*hd .. (h+1)*hd-1 of q, k and v.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowvit.errors import RowvitError
from rowvit.formats import container, description, familiar, head
from rowvit.formats.description import MAX_K, lanes_each
from rowvit.formats.tokens import normalised

FORMAT = 1
_FINER = 7  # bits that a token has beyond the head's input; its range is twice as large
BIAS_LIMIT = 1 << 25  # biases have 26 bits
LINEARS = ("q", "k", "v", "proj", "fc1", "fc2")


def tensor_table(
    arch: dict[str, int], tokens: bool = False, pre_norm: bool = False, coordinates: int = 0, each: int = 1
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of a package, by whether it has normalised ``tokens``, and ``pre_norm``, by its
    ``coordinates`` and by how many channels of FFN1 ``each`` hidden neuron has: name -> (dtype, shape).
    """
    dim, hidden, classes = arch["dim"], arch["hidden"], arch["classes"]
    patch_k = arch["channels"] * arch["patch_size"] ** 2
    table: dict[str, tuple[str, tuple[int, ...]]] = {
        "patch.weight": ("int8", (patch_k, dim)),
        "patch.mult": ("uint16", (dim,)),
        "pos": ("int16", (arch["tokens"], dim)),
    }

    def norm(name: str) -> None:
        table[f"{name}.g"] = ("int16", (dim,))
        table[f"{name}.b"] = ("int32", (dim,))

    def linear(name: str, k: int, out: int) -> None:
        table[f"{name}.weight"] = ("int8", (k, out))
        table[f"{name}.bias"] = ("int32", (out,))
        table[f"{name}.mult"] = ("uint16", (out,))

    for i in range(arch["depth"]):
        norm(f"layers.{i}.norm1")
        for name in ("q", "k", "v", "proj"):
            linear(f"layers.{i}.{name}", dim, dim)
        norm(f"layers.{i}.norm2")
        linear(f"layers.{i}.fc1", dim, each * hidden)
        linear(f"layers.{i}.fc2", hidden, dim)
    if classes:
        norm("norm")
        linear("head", dim, classes)
    if tokens:
        norm("tokens")
    if pre_norm:
        norm("pre_norm")
        table["pre.mult"] = ("uint16", (dim,))
    if coordinates:
        table["rope.table"] = ("int16", (coordinates, dim // arch["heads"] // 4, 2))
        table["rope.places"] = ("uint8", (arch["tokens"], 2))
    return table


def _taught_table(meta: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of what was taught, by the description: name -> (dtype, shape)."""
    taught, dim = meta.get("taught", {}), meta["architecture"]["dim"]
    photos, table = taught.get("photos", 0), dict[str, tuple[str, tuple[int, ...]]]()
    if photos:
        table |= {"taught.seen": ("int8", (photos, dim)), "taught.labels": ("uint16", (photos,))}
    if "recordings" in taught:
        table["taught.recordings"] = "uint16", (photos,)
    if "before" in taught:
        table["taught.before"] = "float32", (dim, dim)
    return table


def patch_chunks(arch: dict[str, int]) -> list[slice]:
    """Scalars of a patch by the products that take them: all in one, or equal chunks of at most 512.

    Of larger chunks two would have no room in a weight memory of 1024 lines.
    """
    size = step = arch["channels"] * arch["patch_size"] ** 2
    if size > MAX_K:
        step = -(-size // -(-size // 512) // 8) * 8
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]


def keep_schedule(patches: int, layers: Sequence[int], rho: float | Sequence[float]) -> list[dict[str, Any]]:
    """A token schedule, as in a package's ``pruning``.

    With one number, EViT's: each of ``layers`` keeps ``ceil(patches * rho)`` of the patches that it sees.
    Several are the shares of all patches that are left behind each of them, rounded to whole patches.
    """
    if isinstance(rho, Sequence):
        kept = [round(patches * share) for share in rho]
    else:
        kept = []
        for _ in layers:
            patches = math.ceil(patches * rho)
            kept.append(patches)
    return [{"layer": layer, "keep": keep, "threshold": 0} for layer, keep in zip(layers, kept, strict=True)]


@dataclass
class ModelPackage:
    """An integer network: metadata, whose ``hash`` `save` computes, and tensors, as described above."""

    meta: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    #: description, tensors (which nobody can write to) and digest of a package as it was loaded
    _loaded: tuple[str, dict[str, NDArray[Any]], str] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def arch(self) -> dict[str, int]:
        """``meta["architecture"]``."""
        found: dict[str, int] = self.meta["architecture"]
        return found

    def digest(self) -> str:
        """SHA-256 over the metadata (without ``hash``) and all tensors, as 64 hex digits."""
        meta = self._hashed()
        if self._loaded is not None:
            text, tensors, known = self._loaded
            same = tensors.keys() == self.tensors.keys() and all(
                self.tensors[n] is tensors[n] for n in tensors
            )
            if same and json.dumps(meta, sort_keys=True) == text:
                return known
        return container.digest(meta, self.tensors)

    def _hashed(self) -> dict[str, Any]:
        """The metadata that `digest` is over."""
        return {k: v for k, v in self.meta.items() if k != "hash"}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Check the package, set its hash and write it; `RowvitError` if a check or the writing fails."""
        container.write(path, self.tensors, self._described(str(path)))

    def encode(self, name: str = "package") -> bytes:
        """What `save` writes; `RowvitError`, which starts with ``name``, if a check fails."""
        return container.encode(name, self.tensors, self._described(name))

    def _described(self, name: str) -> dict[str, str]:
        """The file's metadata, once all is checked."""
        self.check(name)
        self.meta["hash"] = self.digest()
        text = json.dumps(self.meta, sort_keys=True)
        try:
            container.parse(text)
        except ValueError as error:
            raise RowvitError(
                f"{name}: the description holds what no JSON may ({error})", "take out NaN, or rename it"
            ) from error
        return {"rowvit": text}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelPackage:
        """Read and check a package.

        `RowvitError` if the file is missing, truncated, not a package, changed since it was written, or holds
        values outside the ranges of numerics.md.
        """
        return cls._read(path, *container.read(path))

    @classmethod
    def decode(cls, data: bytes, name: str = "package") -> ModelPackage:
        """Read and check the bytes of a package's file, as `load`."""
        return cls._read(name, *container.decode(name, data))

    @classmethod
    def _read(
        cls, path: str | os.PathLike[str], tensors: dict[str, NDArray[Any]], metadata: dict[str, str]
    ) -> ModelPackage:
        if "rowvit" not in metadata:
            raise RowvitError(f"{path}: not a rowvit package", "make one with rowvit quantise")
        try:
            meta = container.parse(metadata["rowvit"])
            version = meta["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise RowvitError(f"{path}: the package's description is not readable") from error
        if version != FORMAT:
            raise RowvitError(
                f"{path}: package format {version}, but this rowvit reads {FORMAT}", "make the package again"
            )
        package = cls(meta, tensors)
        known = package.digest()
        if meta.get("hash") != known:
            raise RowvitError(f"{path}: the contents do not match their hash", "copy or make the file again")
        package.check(str(path))
        package._loaded = json.dumps(package._hashed(), sort_keys=True), dict(tensors), known
        return package

    def check(self, name: str = "package") -> None:
        """Check structure and ranges; `RowvitError`, which starts with ``name``, if a check fails."""
        description.check(self.meta, "package", name)
        try:
            self._check_tensors()
        except ValueError as error:
            raise RowvitError(f"{name}: {error}") from error

    def with_tokens(self, rows: str = "all") -> ModelPackage:
        """The same network, which also answers with tokens behind its last layer; itself if it does.

        They are what its head sees, to 16 bits instead of 8. A package that is quantised with tokens has the
        unit that calibration photos give, and loses nothing at the peaks.

        Parameters
        ----------
        rows : str
            "all", or "class": of `formats.tokens.ROWS`.

        Raises
        ------
        RowvitError
            The package does not say the unit of its last LayerNorm.
        """
        if "tokens" in self.meta:
            return self
        unit, shift = self.meta["scales"].get("norm"), self.meta["params"].get("norm.shift")
        if unit is None or shift is None:
            raise RowvitError(
                f"'{self.meta['name']}' does not say the unit of its tokens", "quantise it with --tokens"
            )
        finer = min(_FINER, shift)
        answer = {"rows": rows, "layers": [self.arch["depth"] - 1], "shift": shift - finer}
        meta = self.meta | {"tokens": answer, "scales": self.meta["scales"] | {"tokens": unit * 2.0**-finer}}
        own = {f"tokens.{part}": self.tensors[f"norm.{part}"] for part in "gb"}
        return ModelPackage({key: meta[key] for key in meta if key != "hash"}, self.tensors | own)

    def _check_tensors(self) -> None:
        coordinates = self.meta.get("rotary", {}).get("coordinates", 0)
        table = tensor_table(
            self.arch, normalised(self.meta), "pre_norm" in self.meta, coordinates, lanes_each(self.meta)
        )
        table |= head.tensor_table(self.meta) | familiar.tensor_table(self.meta)
        table |= _taught_table(self.meta)
        if table.keys() != self.tensors.keys():
            odd = sorted(table.keys() ^ self.tensors.keys())
            raise ValueError(f"tensors missing or unexpected: {', '.join(odd[:5])}")
        for name, (dtype, shape) in table.items():
            tensor = self.tensors[name]
            if tensor.dtype != dtype or tensor.shape != shape:
                raise ValueError(
                    f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}"
                )
            if dtype == "float32":
                if not np.isfinite(tensor).all():
                    raise ValueError(f"tensor {name} has numbers that are not finite")
                continue
            if name == "taught.labels" and tensor.max() >= self.arch["classes"]:
                raise ValueError(f"tensor {name} has class {tensor.max()} of {self.arch['classes']}")
            if name == "taught.recordings" and tensor.max() >= self.meta["taught"]["recordings"]:
                raise ValueError(f"tensor {name} has recording {tensor.max()} of fewer")
            if name == "rope.places" and tensor.max() >= coordinates:
                raise ValueError(f"tensor {name} has coordinate {tensor.max()} of {coordinates}")
            if name == "rope.table" and np.abs(tensor.astype(np.int32)).max() > 1 << 14:
                raise ValueError(f"tensor {name} has cosines or sines above 1")
            if name.endswith(".weight") and tensor.min() < -127:
                raise ValueError(f"tensor {name} holds -128; weights are in [-127, 127]")
            if name.endswith(".bias") and not -BIAS_LIMIT <= tensor.min() <= tensor.max() < BIAS_LIMIT:
                raise ValueError(f"tensor {name} exceeds the 26 bits of a bias")
