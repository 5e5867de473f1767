# SPDX-License-Identifier: Apache-2.0
"""What golden, sim and board have in common: loading a network, taking images, returning results."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rowvit.decoding import Refused, decoded
from rowvit.errors import RowvitError
from rowvit.formats import container
from rowvit.formats.bundled import bundled, names
from rowvit.formats.description import image_shape
from rowvit.formats.familiar import distance
from rowvit.formats.records import checkpoint_names
from rowvit.formats.tokens import Tokens
from rowvit.hardware.config import HardwareConfig
from rowvit.reference.frontend import Geometry

if TYPE_CHECKING:
    from rowvit.compiler import Program
    from rowvit.formats.package import ModelPackage
    from rowvit.targets.features import Features

#: pixels, or the file that has them
ImageSource = NDArray[Any] | str | Path
_Loaded = TypeVar("_Loaded")


@dataclass
class Result:
    """Results of one image."""

    top1: int  #: lowest index among the largest logits; -1 if the network has no classes
    label: str  #: name of that class, or empty
    logits: NDArray[Any]  #: int16 [classes]; float32 where the host computes the head
    scale: float  #: unit of the logits
    #: int64, for every pruning layer: original indices of the tokens that stay, token 0 included
    kept: list[NDArray[Any]]
    #: int16 [live, D]: states of the residual stream by `formats.records.checkpoint_names`, if compiled in
    checkpoints: dict[str, NDArray[Any]] = field(default_factory=dict)
    #: uint8 [heads, rows], of every layer: the class token's unnormalised probabilities of the tokens that
    #: enter it; only on golden
    attention: list[NDArray[Any]] = field(default_factory=list)
    #: clock cycles, in a batch those since the previous image; None on target golden
    cycles: int | None = None
    #: cycles of embedding, each layer, and head; images that are computed together have equal parts. In a
    #: batch, the head of all passes but the last counts in the next image's embedding
    layer_cycles: list[int] = field(default_factory=list)
    layer_fires: list[int] = field(default_factory=list)  #: lane-group multiplications of the same
    #: the core's counters after the start that ran this image; see ``isa.COUNTERS``
    counters: dict[str, int] = field(default_factory=dict)
    batch: int = 1  #: images of that start
    macs_executed: int | None = None  #: work: see `formats.work.Work`; None if ``batch`` is above 1
    macs_dense: int | None = None
    w2_rows_fetched: int | None = None
    w2_rows_total: int | None = None
    seconds: float = 0.0  #: wall time per image, transfers included
    #: wall time in seconds of the start that ran this image: "pack" (making, copying and flushing patches),
    #: "run" (register writes, transfers and the core, up to the last word of the answer), including "send"
    #: (until the last input was taken), and "unpack" (reading counters and records); empty on golden
    timing: dict[str, float] = field(default_factory=dict)
    #: equal to the integer reference in all that `same` compares; None if not compared (yet)
    bit_exact: bool | None = None
    #: by the layers behind which the network answers with tokens (`formats.tokens.layers`)
    tokens: dict[int, Tokens] = field(default_factory=dict)
    #: of a network with heads for each of some tokens, "indices", "scores" and "boxes", as
    #: `rowvit.reference.head.row_answers` has them
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    #: how far it is from what the classes look like, in units of the limit (`formats.familiar`); None if the
    #: network does not say
    distance: float | None = None

    @property
    def verdict(self) -> str:
        """The class in words, also where the image is like none."""
        unlike = self.distance is not None and self.distance > 1
        return f"unlike all, nearest {self.label}" if unlike else self.label

    @property
    def probabilities(self) -> NDArray[Any]:
        """Softmax of the logits in float units, float64 [classes]; computed when it is asked for."""
        scaled = self.logits.astype(np.float64) * self.scale
        exponentials = np.exp(scaled - scaled.max(initial=0.0))
        found: NDArray[np.float64] = exponentials / exponentials.sum()
        return found

    def likeliest(self, classes: Sequence[Any], count: int = 5) -> list[tuple[str, float]]:
        """Names and probabilities of so many ``classes``, which are the network's, the likeliest first."""
        probabilities = self.probabilities
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [(str(classes[i]), float(probabilities[i])) for i in order]

    @property
    def live(self) -> list[int]:
        """Tokens alive after each pruning."""
        return [len(tokens) for tokens in self.kept]

    @classmethod
    def of(
        cls,
        meta: dict[str, Any],
        logits: NDArray[Any],
        kept: list[NDArray[Any]],
        tensors: Mapping[str, NDArray[Any]] = MappingProxyType({}),
        **values: Any,
    ) -> Result:
        """A result from its logits; ``meta`` is the description of a package or program, whose ``tensors``
        are at least those that the host computes with, if it does.
        """
        values["distance"] = distance(meta, tensors, values.get("tokens", {}))
        if not logits.size:
            return cls(-1, "", logits, 1.0, kept, **values)
        top1 = int(logits.argmax())
        scale = 1.0 if "host_head" in meta else meta["scales"]["logit"]
        return cls(top1, str(meta["classes"][top1]), logits, scale, kept, **values)

    def same(self, other: Result) -> bool:
        """Whether logits, tokens, kept tokens and checkpoints are equal.

        Logits that the host has computed, from equal tokens, are so up to the rounding of sums, whose order
        depends on how many threads a process has.
        """
        ours, theirs = (
            [
                *r.kept,
                *(part for layer in sorted(r.tokens) for part in r.tokens[layer]),
                *(r.checkpoints[name] for name in sorted(r.checkpoints)),
            ]
            for r in (self, other)
        )
        if (self.checkpoints.keys(), self.tokens.keys()) != (other.checkpoints.keys(), other.tokens.keys()):
            return False
        equal = len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))
        return equal and not _different(self.logits, other.logits).any()


def _different(logits: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Which logits [classes] differ, those of the host by more than sums are rounded."""
    if logits.shape != wanted.shape:
        return np.ones(1, bool)
    room = 1e-4 * np.abs(wanted).max(initial=0.0) if wanted.dtype.kind == "f" else 0
    found: NDArray[np.bool_] = ~(np.abs(logits.astype(np.float64) - wanted) <= room)
    return found


def first_difference(result: Result, reference: Result, meta: dict[str, Any]) -> str:
    """Where a result first differs from the integer reference's, in the order of computation.

    Parameters
    ----------
    result, reference : Result
    meta : dict
        Description of the network.

    Returns
    -------
    str
        As "checkpoint layers.2.ffn, row 5, channel 7: 12 instead of 13"; empty if they are the `same`.
    """
    pruned = {f"layers.{step['layer']}.attn": number for number, step in enumerate(meta["pruning"])}
    for name in checkpoint_names(meta["architecture"]["depth"]):
        if name in pruned:
            kept, wanted = (one.kept[pruned[name]].tolist() for one in (result, reference))
            for number, pair in enumerate(zip_longest(kept, wanted, fillvalue="none")):
                if pair[0] != pair[1]:
                    layer = meta["pruning"][pruned[name]]["layer"]
                    return f"tokens kept by layer {layer}, number {number}: {pair[0]} instead of {pair[1]}"
        if name in reference.checkpoints:
            rows, other = result.checkpoints.get(name), reference.checkpoints[name]
            if rows is None or rows.shape != other.shape:
                return f"checkpoint {name}, which is not there with {len(other)} rows"
            for row, channel in np.argwhere(rows != other)[:1]:
                values = f"{rows[row, channel]} instead of {other[row, channel]}"
                return f"checkpoint {name}, row {row}, channel {channel}: {values}"
    for layer, (rows, _) in reference.tokens.items():
        own = result.tokens[layer].values if layer in result.tokens else None
        if own is None or own.shape != rows.shape:
            return f"tokens behind layer {layer}, which are not there with {len(rows)} rows"
        for row, channel in np.argwhere(own != rows)[:1]:
            values = f"{own[row, channel]} instead of {rows[row, channel]}"
            return f"tokens behind layer {layer}, row {row}, channel {channel}: {values}"
    for index in np.flatnonzero(_different(result.logits, reference.logits))[:1]:
        parts = {
            "kept tokens": reference.kept,
            "checkpoints": reference.checkpoints,
            "tokens": reference.tokens,
        }
        before = [name for name, part in parts.items() if part]
        equal = f" ({' and '.join(before)} are equal)" if before else ""
        return f"logits[{index}]: {result.logits[index]} instead of {reference.logits[index]}{equal}"
    return ""


def require_batch(batch: int) -> None:
    """`RowvitError` unless a start of the core may have so many images."""
    if not 1 <= batch <= 0xFFFF:
        raise RowvitError(f"a batch of {batch} images is not possible", "use 1 to 65535")


class Prepared(Iterator[NDArray[Any]]):
    """Pixels from `Target.prepared`, for its `stream` in batches of the same size."""

    def __init__(self, pixels: Generator[NDArray[Any], None, None]) -> None:
        self._pixels = pixels

    def __next__(self) -> NDArray[Any]:
        return next(self._pixels)

    def close(self) -> None:
        """Decode no more."""
        self._pixels.close()


class Target:
    """What golden, sim and board have in common: `load` a network, call with images, `close`."""

    config: HardwareConfig
    #: what makes patches of images: "host", or "hls", the preprocessor, which takes images of any size
    frontend: str = "host"

    def load(self, model: str | Path | ModelPackage | Program) -> None:
        """Load a network: a package, a program, the path of either, or a name that rowvit brings."""
        raise NotImplementedError

    def _run(self, images: Sequence[NDArray[Any]]) -> list[Result]:
        """The results of one batch."""
        raise NotImplementedError

    #: description of the loaded network
    meta: dict[str, Any] | None = None

    def __call__(self, images: ImageSource | Sequence[ImageSource], batch: int = 1) -> list[Result]:
        """Classify images.

        Parameters
        ----------
        images : uint8 array [B, H, W, 3] or [H, W, 3], or path, or list of paths or of arrays [H, W, 3]
            Pixels of the size that the network takes, or files of any size. The HLS front end takes
            pixels of any size, and scales the middle square.
        batch : int
            Images per start of the core. More than one is faster; the counters are then the batch's.

        Raises
        ------
        RowvitError
            No network is loaded, the images do not fit it, the accelerator failed, or a result that was
            checked differs from the integer reference.
        """
        self._ready(batch)
        if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
            images = [images]
        return list(self.stream(images, batch))

    def features(
        self, images: ImageSource | Sequence[ImageSource], batch: int = 1, layer: int | None = None
    ) -> Features:
        """Tokens of images, as `features.Features`; ``images`` and ``batch`` as of a call.

        ``layer`` is that behind which, from 0, by default the last one that there is. `RowvitError` also if
        the network does not answer with tokens, or not behind this layer.
        """
        from rowvit.targets.features import features, layer_of

        self._ready(batch)
        layer = layer_of(loaded(self.meta), layer)
        return features([one.tokens for one in self(images, batch)], loaded(self.meta), layer)

    def stream(self, images: Iterable[ImageSource], batch: int = 1) -> Iterator[Result]:
        """Classify images as they come, in order.

        While the core computes one batch, the next is taken from ``images`` and prepared, so results
        come one batch late; files are decoded by threads, up to two batches early. To end early, close
        the generator or drop it.

        Parameters
        ----------
        images : iterable of uint8 arrays [H, W, 3] or of paths, as for a call
        batch : int
            Images per start of the core.

        Raises
        ------
        RowvitError
            As for a call; a difference from the integer reference (``check_every``) may come some results
            late. What ``images`` raises passes through, after the results of the images before it; the
            target can be used again.
        """
        self._ready(batch)
        for pixels in self._batches(images, batch):
            yield from self._run(pixels)

    def _ready(self, batch: int) -> None:
        loaded(self.meta)
        require_batch(batch)

    def _batches(self, images: Iterable[ImageSource], batch: int) -> Iterator[Sequence[NDArray[Any]]]:
        """Batches of up to ``batch`` images' pixels."""
        failure: Exception | None = None
        pixels: Generator[NDArray[Any], None, None] | Prepared
        if isinstance(images, Prepared):
            pixels = images
        elif isinstance(images, np.ndarray | list) and all(isinstance(one, np.ndarray) for one in images):
            pixels = (self._pixels(image) for image in images)  # there is nothing to decode
        else:
            pixels = self.prepared(images, batch)
        with closing(pixels):
            while failure is None:
                group: list[NDArray[Any]] = []
                try:
                    for one in islice(pixels, batch):
                        group.append(one)
                except Exception as error:  # raised after the images before it
                    failure = error
                if group:
                    yield group
                elif failure is None:
                    return
        raise failure

    def prepared(
        self, images: Iterable[ImageSource], batch: int = 1, refused: Refused | None = None
    ) -> Prepared:
        """Pixels of the images, in order; files are decoded by threads, up to two batches early.

        Not so early that they take more than 64 MB. With ``refused``, that gets what cannot be used, and the
        others follow. Arrays that come one after the other are copied where a batch waits for several.
        """
        own = batch == 1 or isinstance(images, np.ndarray | list | tuple)
        return Prepared(decoded(images, self._pixels if own else self._copied, 2 * batch, refused))

    def _copied(self, image: ImageSource) -> NDArray[Any]:
        """`_pixels`, which stay as they are when the caller writes the next image to the same array."""
        pixels = self._pixels(image)
        return pixels.copy() if isinstance(image, np.ndarray) else pixels

    def _pixels(self, image: ImageSource) -> NDArray[Any]:
        """An image as uint8 [height, width, 3]; of the network's size, with the host front end."""
        meta = loaded(self.meta)
        if isinstance(image, str | Path):
            from rowvit.images import for_network

            image = for_network(image, meta, self.frontend)
        elif not isinstance(image, np.ndarray):
            raise RowvitError(
                f"an image is of type {type(image).__name__}", "use a path or a uint8 array, as of np.asarray"
            )
        height, width = image_shape(meta["architecture"])
        size = f"{height}, {width}"
        if self.frontend == "hls":
            size = "height, width"
            height, width = image.shape[:2] if image.ndim == 3 else (height, width)
        if image.dtype != np.uint8 or image.shape != (height, width, 3):
            raise RowvitError(
                f"images are {image.dtype} {[1, *image.shape]}", f"this network takes uint8 [B, {size}, 3]"
            )
        if self.frontend == "hls":
            Geometry.for_network(width, height, meta["architecture"])  # refuses what the preprocessor does
        return image

    def is_checking(self, result: Result) -> bool:
        """Whether the integer reference is still at work on a result, whose ``bit_exact`` it will set."""
        return False

    @property
    def count(self) -> int:
        """Number of the next image that is compared with the integer reference, if it is due; else 0."""
        return 0

    def count_from(self, first: int) -> None:
        """Number images from ``first`` on: other processes take those before it."""

    def probe(self) -> None:
        """Raise an error if what computes is no longer there; a few reads of registers."""

    def close(self) -> None:
        """Free buffers and device."""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def position(number: int, refused: Iterable[int]) -> int:
    """Where an image is among all, given its number among those that could be used."""
    for one in sorted(refused):
        number += one <= number
    return number


def loaded(part: _Loaded | None) -> _Loaded:
    """A part of the loaded network; `RowvitError` if there is none."""
    if part is None:
        raise RowvitError("no network is loaded", "call load with a package or a program first")
    return part


def read_model(model: str | Path | ModelPackage | Program) -> ModelPackage | Program:
    """A package or program as it is, from a file, or by the name of a network that comes with rowvit.

    `RowvitError` if the file is missing, damaged, or neither.
    """
    if not isinstance(model, str | Path):
        return model
    from rowvit.formats.package import ModelPackage
    from rowvit.formats.program import Program

    path = bundled(model) or Path(model)
    if not path.exists() and not path.suffix:
        source = str(model).startswith("timm:")
        raise RowvitError(
            f"{model}: {'a float network' if source else 'no such file, and no network of this name'}",
            f"make a package of it: rowvit import {model} -o vit.safetensors"
            if source
            else f"rowvit comes with {' and '.join(names())}",
        )
    return (Program if "rowvit-program" in container.metadata(path) else ModelPackage).load(path)


def read_package(model: str | Path | ModelPackage | Program) -> ModelPackage:
    """Like `read_model`, but the package of a program; `RowvitError` if it was compiled elsewhere."""
    from rowvit.formats.package import ModelPackage

    found = read_model(model)
    if isinstance(found, ModelPackage):
        return found
    if found.package is None:
        raise RowvitError(
            f"this is a program compiled for '{found.meta['config']['name']}', which only sim and board run",
            "use the model package",
        )
    return found.package


def read_program(
    model: str | Path | ModelPackage | Program,
    config: HardwareConfig,
    checkpoints: bool = False,
    keep: bool = True,
) -> Program:
    """Like `read_model`, but a package is compiled for ``config`` (or was before: `compiler.cache`, where it
    is kept for the next time if it may be), and a program must be for it.

    `RowvitError` as in `read_model`, or if the network does not fit the configuration, or the program is for
    another one, or wrong (`compiler.check`).
    """
    from rowvit.compiler import Program, check
    from rowvit.compiler.cache import compiled

    found = read_model(model)
    if not isinstance(found, Program):
        return compiled(found, config, checkpoints, keep)
    made = found.meta["config"]
    if made["hash"] != config.hash:
        raise RowvitError(
            f"the program is for configuration '{made['name']}' (hash 0x{made['hash']:08X}), not for"
            f" '{config.name}' (0x{config.hash:08X})",
            f"name that one, --config {made['name']}, or compile the package again",
        )
    if not found.checked:
        check(found, config)
    return found
