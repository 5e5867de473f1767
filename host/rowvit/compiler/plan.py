# SPDX-License-Identifier: Apache-2.0
"""Memory plan: where activations are in token, weight and residual memory, and whether a network fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rowvit.compiler.steps import Region
from rowvit.errors import RowvitError
from rowvit.formats.description import MAX_K, lanes_each
from rowvit.formats.package import patch_chunks
from rowvit.hardware import config as configs
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import MAX_IMAGES

MAX_ROW_WORDS = 2047  # patches of up to 73 pixels: the field takes more, which nothing has run
EMBED_TAG = 255  #: tag of the embedding's MARK record; a layer's is its number


@dataclass(frozen=True)
class Stage:
    """Layers from ``layer`` on, up to the next stage's, that ``images`` images are computed in together."""

    layer: int
    images: int


#: the stages of a pass, from layer 0 on: each has a multiple of the images of the one before, whose groups of
#: images come one after the other, and begins behind a layer that drops tokens, which moves what is left
Stages = tuple[Stage, ...]
ALONE: Stages = (Stage(0, 1),)


class Sizes:
    """Sizes and places of one network's activations (``meta`` of its package), whether they fit or not."""

    def __init__(self, meta: dict[str, Any], config: HardwareConfig) -> None:
        self.meta, self.config = meta, config
        self.arch = meta["architecture"]
        self.rule: str = meta["ffn2_rule"]
        self.tokens = live = int(self.arch["tokens"])
        keep = {step["layer"]: step["keep"] for step in meta["pruning"]}
        self.bounds: list[tuple[int, int]] = []  #: of every layer's live tokens, in attention and after it
        for layer in range(self.arch["depth"]):
            self.bounds.append((live, min(live, keep.get(layer, live) + 1)))
            live = self.bounds[-1][1]
        self.dim: int = self.arch["dim"]
        self.heads: int = self.arch["heads"]
        self.head_dim = self.dim // self.heads
        self.each = lanes_each(meta)  #: lanes that a hidden neuron takes, the last with its activation
        self.hidden: int = self.each * self.arch["hidden"]  #: lanes of all
        self.chunk: int = min(self.each * meta["ffn_chunk"], self.hidden)  #: lanes of a chunk
        self.words = self.dim // 8  #: of a row of X
        self.dim_tiles = -(-self.dim // config.tile)
        self.res_stride: int = self.dim_tiles * config.lanes
        self.row_words = -(-self.arch["channels"] * self.arch["patch_size"] ** 2 // 8)
        #: one head takes `lanes` channels of a Q, K, V or O row, whatever its width
        self.heads_words = self.heads * config.lanes // 8
        #: of a patch's row, by the products that take them
        self.patch_words = [-(-(c.stop - c.start) // 8) for c in patch_chunks(self.arch)]
        bands = config.bands(self.tokens)
        self.patches = Region(config.token_depth - self.row_words * bands, self.row_words, bands)
        #: words of `lanes` hidden values: without a mask rule they are stored dense
        self.hidden_segment = config.lanes // 8 if self.rule == "none" else config.segment_words

    def residual_tiles(self) -> list[tuple[int, slice, int]]:
        """(address offset, channels, active groups) of every lane tile of the residual stream."""
        lanes, tile = self.config.lanes, self.config.tile
        found = []
        for start in range(0, self.dim, tile):
            end = min(start + tile, self.dim)
            found.append((start // tile * lanes, slice(start, end), -(-(end - start) // lanes)))
        return found

    def place(self, address: int) -> int:
        """Where the place of a row is, by the residual address of its band: in the same order."""
        return address // self.res_stride * self.config.rows

    def shares(self, stages: Stages) -> list[int]:
        """Of every layer, the images that are computed together."""
        return [
            max(stage.images for stage in stages if stage.layer <= layer) for layer in range(len(self.bounds))
        ]

    def check_stages(self, stages: Stages) -> None:
        """`RowvitError` unless they are stages that the network can have."""
        layers, images = (
            zip(*((one.layer, one.images) for one in stages), strict=True) if stages else ((), ())
        )
        depth = len(self.bounds)
        if layers[:1] != (0,) or layers[-1] >= depth or any(a >= b for a, b in pairwise(layers)):
            raise RowvitError(
                f"stages begin with layers {layers}", f"use 0 and then ascending ones below {depth}"
            )
        if not 1 <= images[0] <= images[-1] <= MAX_IMAGES or any(b % a for a, b in pairwise(images)):
            raise RowvitError(
                f"stages have {images} images",
                f"use multiples of those of the stage before, up to {MAX_IMAGES}",
            )
        if self.rule == "tile" and images[-1] > 1:
            raise RowvitError("masks of row tiles are of one image", "use ffn2_rule image where images share")
        sizes = [self.residual_size(self.bounds[layer][0]) for layer in layers]
        for layer, (before, size) in zip(layers[1:], pairwise(sizes), strict=True):
            attended, live = self.bounds[layer - 1]
            if size != before and live == attended:
                raise RowvitError(
                    f"a stage begins with layer {layer}, and the one before drops no tokens",
                    "begin stages behind layers that do",
                )

    def residual_size(self, tokens: int) -> int:
        """Residual addresses of an image with ``tokens`` live ones."""
        return self.config.bands(tokens) * self.res_stride

    def residual_base(self, stages: Stages, level: int, image: int) -> int:
        """First residual address of an image in a stage.

        First come the images that wait for a later stage, then those of the group at work. An image never
        moves up, so that the projection, which drops and moves rows in one, reads none that it has written.
        """
        base = 0
        for q in range(len(stages) - 1, level - 1, -1):
            size = self.residual_size(self.bounds[stages[q].layer][0])
            number = image % stages[q].images
            below = stages[q - 1].images if q > level else 1
            base += number // below * below * size
        return base

    def table_base(self, tokens: int, number: int) -> int:
        """Entry in the tables of scores and of the selection, of one of the images that prune together."""
        return number * -(-tokens // 8) * 8

    def attention_regions(self, tokens: int, images: int = 1) -> list[tuple[Region, Region]]:
        """Of every image X, and the rows of all heads' Q, which O replaces; P follows those of all.

        Where the token memory is too small for an image's, X is a part of those rows: the heads of the last
        pass over the groups have their Q in its place.
        """
        config, bands = self.config, self.config.bands(tokens)
        size = bands * (self.words + self.heads_words)
        if images > 1 or size + self.p_words(tokens) <= config.token_depth:
            found = [Region(i * size, self.words, bands) for i in range(images)]
            return [(x, Region(x.end, self.heads_words, bands)) for x in found]
        before = (self.heads - 1) // config.groups * config.groups * config.lanes // 8
        stride = max(before + self.words, self.heads_words)
        return [(Region(before, stride, bands), Region(0, stride, bands))]

    def holds_qkv(self, tokens: int) -> bool:
        """Whether the weights of Q, K and V have room at once, beside K^T and V of two images."""
        lines = 3 * self.dim + 2 * (self.kt_lines(tokens) + self.v_lines(tokens))
        return lines <= self.config.weight_depth

    def kt_lines(self, tokens: int) -> int:
        return -(-tokens // self.config.lanes) * self.config.lanes

    def v_lines(self, tokens: int) -> int:
        return self.config.bands(tokens) * self.config.rows

    def p_stride(self, tokens: int) -> int:
        return -(-tokens // self.config.lanes) * self.config.segment_words

    def p_words(self, tokens: int) -> int:
        return 2 * self.config.groups * self.p_stride(tokens)

    def hidden_stride(self, lanes: int) -> int:
        """Words of a row of so many lanes of hidden activations."""
        return -(-lanes // self.config.lanes) * self.hidden_segment

    def row_tiles(self, bands: int) -> list[tuple[int, int]]:
        """(first band, bands) of every row tile that has its own mask."""
        if self.rule != "tile":
            return [(0, bands)]
        step = self.meta["tile_rows"] // self.config.rows
        return [(band, min(step, bands - band)) for band in range(0, bands, step)]

    def mask_words(self, bands: int) -> int:
        """Mask words of one chunk."""
        if self.rule == "none":
            return 0
        words = len(self.row_tiles(bands)) * -(-self.chunk // self.config.lanes)
        return words + self.config.groups if self.rule == "image" else words

    def problem(self) -> str:
        """Why the network does not fit the configuration, with the numbers; empty if it does."""
        name = f"'{self.meta['name']}' on '{self.config.name}'"
        try:
            for needed, available, what in self._needs(name):
                if needed > available:
                    return f"{name} needs {what}: {needed}, available: {available}"
        except RowvitError as error:
            return error.message
        return ""

    def on_chip(self) -> int:
        """Bytes that the network needs of the weight, token and residual memories."""
        config = self.config
        width = {
            "weight": config.lanes * config.groups,
            "token": 8 * config.rows,
            "residual": 2 * config.rows * config.groups,
        }
        needed = dict.fromkeys(width, 0)
        for amount, _, what in self._needs(""):
            memory = what.split()[0]
            if memory in needed:
                needed[memory] = max(needed[memory], amount)
        return sum(width[memory] * amount for memory, amount in needed.items())

    def _needs(self, name: str) -> Iterator[tuple[int, int, str]]:
        """(needed, available, what), in the order of checking; what must divide is checked in between."""
        config, depth, bands = self.config, self.config.weight_depth, self.patches.bands
        yield self.tokens, config.max_tokens, "tokens"
        yield self.dim, config.max_dim, "LayerNorm channels"
        yield self.head_dim, config.lanes, "channels per head"
        yield self.heads * config.lanes, MAX_K, "terms in the projection, a head padded to the lanes"
        yield self.row_words, MAX_ROW_WORDS, "words in a patch"
        yield self.arch["depth"], EMBED_TAG // 2, "layers"
        if self.dim % config.lanes:
            raise RowvitError(f"{name}: dim {self.dim} is not a multiple of the {config.lanes} lanes")
        chunk = -(-self.chunk // config.lanes) * config.lanes
        yield chunk, MAX_K, "terms in an FFN2 chunk (ffn_chunk, padded to the lanes)"
        yield bands * self.res_stride, config.residual_depth, "residual memory addresses"
        if "rotary" in self.meta:
            yield bands * config.rows, config.rotary_tokens, "rows with rotary positions"
        if "gated" in self.meta and not config.rotary_tokens:
            raise RowvitError(f"{name} needs a gated FFN, which comes with rotary positions (rotary_tokens)")
        yield 8 * max(self.patch_words), depth, "weight lines for the patch embedding"
        yield chunk, depth, "weight lines for an FFN2 chunk"
        kt, v = self.kt_lines(self.tokens), self.v_lines(self.tokens)
        what = f"weight lines for attention ({self.dim} of V's weights, {kt} of K^T, {v} of V)"
        yield self.dim + kt + v, depth, what
        yield self.heads * config.lanes, depth, "weight lines for the projection"
        tile_rows = self.meta["tile_rows"]
        if self.rule == "tile" and tile_rows % config.rows:
            raise RowvitError(
                f"{name}: tile_rows {tile_rows} is not a multiple of {config.rows}, the rows of a band"
            )
        # the first LayerNorm writes X band by band behind the patch embedding's reads
        behind = max(0, self.words - self.row_words) * max(1, bands - 1)
        yield self.row_words * bands + behind, config.token_depth, "token words for the patches and X"
        for before, after in set(self.bounds):
            rows = self.attention_regions(before)[0][1].end + self.p_words(before)
            yield rows, config.token_depth, f"token words for X, Q and P of {before} tokens"
            ffn = config.bands(after) * (self.words + self.hidden_stride(self.chunk))
            what = f"token words for X and {self.chunk // self.each} hidden neurons of {after} tokens"
            yield ffn, config.token_depth, what
            masks = self.mask_words(config.bands(after))
            yield masks, config.mask_depth, f"mask words for an FFN2 chunk of {after} tokens"


class Plan(Sizes):
    """Sizes and places of the activations of a network that fits the configuration.

    Raises
    ------
    RowvitError
        It does not fit; the message has the numbers, and says what would.
    """

    def __init__(self, meta: dict[str, Any], config: HardwareConfig) -> None:
        super().__init__(meta, config)
        if why := self.problem():
            raise RowvitError(why, what_fits(meta, config))


def problem(meta: dict[str, Any], config: HardwareConfig) -> str:
    """Why a network does not fit a configuration; empty if it does."""
    return Sizes(meta, config).problem()


def chunks(meta: dict[str, Any], config: HardwareConfig) -> Iterator[int]:
    """FFN2 chunks that fit a configuration: the network's own, then smaller ones, in lanes."""
    own, step = min(meta["ffn_chunk"], meta["architecture"]["hidden"]), config.lanes // lanes_each(meta)
    for chunk in [own, *range((own - 1) // step * step, 0, -step)]:
        if not problem(meta | {"ffn_chunk": chunk}, config):
            yield chunk


def what_fits(meta: dict[str, Any], config: HardwareConfig) -> str:
    """Advice where a network does not fit a configuration."""
    chunk = next(chunks(meta, config), None)
    others = [name for name in configs.names() if not problem(meta, configs.load(name))]
    found = [f"rowvit quantise --ffn-chunk {chunk} makes it fit"] if chunk else []
    found += [f"it fits {', '.join(others)}"] if others else []
    return ", or ".join(found) or "no named configuration holds it (rowvit fits has their limits)"
