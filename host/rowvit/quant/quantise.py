# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: float network and calibration photos to a model package.

Weights get one scale per output channel, activations one per tensor, chosen on calibration photos to
minimise the squared error of rounding and clipping together. The residual stream has one scale for the
whole network. Token pruning is active during calibration, so that the scales fit the tokens that stay.
Weights are rounded to nearest, but those of the patch embedding so that their errors cancel: its inputs are
neighbouring pixels. (In the other layers that gains 0.2 dB in a DeiT-Tiny, and is left out.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rowvit.errors import RowvitError
from rowvit.formats.description import COORDINATES, MAX_HEADS, MAX_K, image_keys
from rowvit.formats.head import ROW_HEADS
from rowvit.formats.package import FORMAT, ModelPackage, patch_chunks
from rowvit.formats.records import checkpoint_names
from rowvit.formats.tokens import ROWS
from rowvit.model.store import require_finite
from rowvit.model.vit import Block, Mlp, VisionTransformer, ViTConfig, predict
from rowvit.quant.calibrate import METHODS, ActivationStatistics
from rowvit.quant.fixed import multiplier, rotations, value_shift
from rowvit.quant.linear import linear
from rowvit.reference import patchify
from rowvit.reference.attention import ROTATED_BITS
from rowvit.reference.layers import GATE_BITS

LOG = logging.getLogger("rowvit")

_HEADROOM = 1.5  # of residual stream, logits and tokens, relative to their peaks in calibration
_EPSILON = 0.01  # of the tokens' variance, above which leaving LayerNorm's epsilon out shows
_PHOTOS = 32  # whose pixels are held as floats


@dataclass(frozen=True)
class QuantOptions:
    """Options of the quantiser.

    Raises
    ------
    RowvitError
        If a value is out of its range.
    """

    name: str
    classes: Sequence[str]
    mean: Sequence[float] = (0.5, 0.5, 0.5)  #: of pixels in 0..1, by channel
    std: Sequence[float] = (0.5, 0.5, 0.5)  #: likewise
    resize: str = "bicubic"  #: or "bilinear"
    crop: float = 1.0  #: side of the middle square that is scaled, as a share of a photo's shorter side
    ffn2_rule: str = "image"  #: or "none" or "tile"
    tile_rows: int = 16
    ffn_chunk: int = 256  #: hidden neurons per chunk of FFN2
    #: lossy threshold rule: every layer gets the largest threshold below which the hidden activations hold at
    #: most this share of the squared sum; 0 disables the rule
    threshold_energy: float = 0.0
    method: str = "mse"  #: how scales of activations are chosen; see `ActivationStatistics.scale`
    percentile: float = 99.99
    #: requantisation multiplies by powers of two only; the scales of weights are adapted to that
    power_of_two: bool = False
    licence: str = ""
    source: str = ""
    tokens: str = ""  #: with which the network answers: "class" or "all"; none if empty
    behind: Sequence[int] = ()  #: the layers, from 0; by default the last one

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RowvitError(f"calibration '{self.method}' is not one of {', '.join(METHODS)}")
        if not 0 < self.percentile <= 100:
            raise RowvitError(f"percentile {self.percentile:g} is not in 0..100")
        if not 0 <= self.threshold_energy < 1:
            raise RowvitError(f"threshold energy {self.threshold_energy:g} is not in 0..1")
        if self.tokens not in ("", *ROWS):
            raise RowvitError(f"tokens '{self.tokens}' are not {' or '.join(ROWS)}")


def quantise(model: VisionTransformer, photos: np.ndarray, options: QuantOptions) -> ModelPackage:
    """Quantise a float network.

    Parameters
    ----------
    model : VisionTransformer
        With ReLU; the package has its pruning schedule.
    photos : uint8 array [B, S, S, 3]
        Calibration photos; a few hundred, none of them used for testing.
    options : QuantOptions

    Raises
    ------
    RowvitError
        If the network cannot be expressed in the numerics, or the photos do not fit it.
    """
    config = model.config
    refuse_what_does_not_run(model, bool(options.tokens))
    if config.head_on_host or config.row_heads is not None:
        if options.tokens == "class":
            raise RowvitError(
                "the network's head, which the host computes, sees all tokens",
                "let it answer with all of them",
            )
        options = replace(options, tokens="all", behind=[*options.behind, config.depth - 1])
    if options.tokens == "class" and config.pool == "mean":
        raise RowvitError(
            "the network's last LayerNorm is that of the patches' mean: without it tokens are as in the"
            " residual stream, and come all together",
            "let it answer with all tokens",
        )
    behind = sorted(set(options.behind)) or [config.depth - 1]
    if options.tokens and not 0 <= behind[0] <= behind[-1] < config.depth:
        raise RowvitError(f"the network has no layers {behind}", f"it has 0 to {config.depth - 1}")
    if options.tokens == "class" and not config.prefix:
        raise RowvitError("the network has no class token to answer with", "let it answer with all tokens")
    if options.tokens and not config.classes and behind[-1] != config.depth - 1:
        raise RowvitError("without classes the tokens behind the last layer are the answer", "name it, too")
    shape = *config.size, 3
    if photos.dtype != np.uint8 or photos.shape[1:] != shape or not len(photos):
        raise RowvitError(
            f"calibration photos are {photos.dtype} {list(photos.shape)},"
            f" expected uint8 [images, {shape[0]}, {shape[1]}, 3]"
        )
    if config.gated and options.threshold_energy:
        raise RowvitError("a gated FFN has no threshold", "leave out --threshold-energy")
    if any(config.thresholds) and options.threshold_energy:
        raise RowvitError("the network has thresholds of its own", "leave out --threshold-energy")
    if options.ffn_chunk > MAX_K:
        raise RowvitError(f"an FFN2 chunk of {options.ffn_chunk} is above {MAX_K}: the sum could overflow")
    if len(photos) == 1:
        LOG.warning("calibrating on one photo: the scales will not fit others; use a few hundred")
    statistics = ActivationStatistics()
    states = {f"layers.{layer}.ffn" for layer in behind if options.tokens}

    stream, variance = torch.empty(0), math.inf

    def observe(name: str, value: Tensor) -> None:
        nonlocal stream, variance
        statistics.observe(name, value)
        prefix, _, part = name.rpartition(".")
        if part in ("embed", "attn", "ffn"):
            variance = min(variance, float(value.var(dim=-1, correction=0).mean()))
        if part == "o":
            statistics.observe("sums", _block(model, prefix).attn.proj(value))
        elif part == "attn":
            stream = value
        elif part == "hidden":
            for found in _sums(_block(model, prefix).mlp, value, stream, options.ffn_chunk):
                statistics.observe("sums", found)
        if name in states:
            statistics.observe("tokens", model.norm(value[:, :1] if options.tokens == "class" else value))

    predict(model, photos, options.mean, options.std, observe=observe)
    if config.eps > _EPSILON * variance:
        LOG.warning(
            "LayerNorm's epsilon is %g, and the tokens' variance only %.2g in one place: the"
            " accelerator leaves it out, and its results will differ from the float network's",
            config.eps,
            variance,
        )
    options = replace(options, behind=behind)
    return _Builder(model, statistics, photos, options).build()


def _block(model: VisionTransformer, name: str) -> Block:
    """Of the name that its activations begin with: ``layers.3``."""
    block: Block = model.blocks[int(name.rpartition(".")[2])]
    return block


def _sums(mlp: Mlp, hidden: Tensor, stream: Tensor, chunk: int) -> Iterator[Tensor]:
    """What FFN2 adds to the residual stream chunk by chunk, and every sum (docs/numerics.md, section 3): all
    have to fit, not the last one alone.
    """
    parts = zip(mlp.passed(hidden).split(chunk, dim=-1), mlp.fc2.weight.split(chunk, dim=1), strict=True)
    for number, (part, weight) in enumerate(parts):
        added = functional.linear(part, weight, None if number else mlp.fc2.bias)
        stream = stream + added
        yield added
        yield stream


def refuse_what_does_not_run(model: VisionTransformer, tokens: bool = False) -> None:
    """Raise RowvitError, with the reason, for a network that the numerics cannot express.

    With ``tokens`` it answers with them, and needs no head.
    """
    for obstacle in obstacles(model.config, tokens):
        raise obstacle
    require_finite(model.state_dict(), "the network")


def obstacles(config: ViTConfig, tokens: bool = False) -> Iterator[RowvitError]:
    """What keeps a network from running on any configuration, and what to do about it.

    With ``tokens`` it answers with them, and needs no head.
    """
    if config.act != "relu":
        yield RowvitError(
            f"the network's activation is {config.act}, the accelerator's is ReLU",
            f"use ReLU (rowvit relu converts a {config.act} network)",
        )
    if config.head_on_host and config.prefix > 1 and config.pruning:
        yield RowvitError(
            f"the head sees the patches' mean, and pruning may drop the {config.prefix - 1} tokens beside the"
            " class token",
            "leave out the pruning",
        )
    if config.distilled:
        yield RowvitError(
            "the network has a second head on the distillation token, the accelerator only one",
            "import it with --head class",
        )
    if not config.classes and not tokens and config.row_heads is None:
        yield RowvitError(
            "the network has no classifier head",
            "let it answer with tokens (rowvit quantise --tokens class, or all), or import it with --classes"
            " and train it",
        )
    if config.dim > MAX_K:
        yield RowvitError(
            f"the network is {config.dim} channels wide, and the accelerator's products end at {MAX_K} terms",
            "use a smaller one",
        )
    if config.rotary and max(config.grid) >= COORDINATES:
        yield RowvitError(
            f"the network has rotary positions of {max(config.grid)} patches a side, and"
            f" {COORDINATES - 1} fit",
            "use a smaller image (--image-size)",
        )
    if config.heads > MAX_HEADS and config.pruning:
        yield RowvitError(
            f"the network drops tokens by the scores of {config.heads} heads, but {MAX_HEADS} fit",
            "leave out the pruning",
        )


#: heads that the host computes from tokens: by the float network's ``pool``, what `formats.head` calls it
HOST_POOLS = {"norm-mean": "mean", "class-mean": "class-mean", "mean": "mean", "attention": "attention"}


def default_chunk(config: ViTConfig) -> int:
    """Hidden neurons per chunk of FFN2: equal chunks of at most 384, a multiple of 64 if possible; of a gated
    FFN half as many.
    """
    hidden, most, step = config.hidden, 384 >> config.gated, 64 >> config.gated
    chunks = -(-hidden // most)
    return -(-hidden // chunks // step) * step if hidden > most else hidden


def integer_threshold(threshold: float, unit: float) -> int:
    """A threshold of hidden activations as a package has it, of a float one and their unit."""
    return min(max(1, math.ceil(threshold / unit)), 255)


def _pixel_moment(photos: np.ndarray, patch: int, mean: np.ndarray) -> np.ndarray:
    """Second moment [in, in] of the patch embedding's inputs, less their ``mean`` [in]."""
    shift = mean.astype(np.float32)
    moment = np.zeros((len(shift), len(shift)))
    for first in range(0, len(photos), _PHOTOS):
        rows = patchify(photos[first : first + _PHOTOS], patch).reshape(-1, len(shift)) - shift
        moment += rows.T @ rows
    return moment


class _Builder:
    """Collects the integer tensors and parameters of one network."""

    def __init__(
        self,
        model: VisionTransformer,
        statistics: ActivationStatistics,
        photos: np.ndarray,
        options: QuantOptions,
    ) -> None:
        self.config, self.statistics, self.photos, self.options = model.config, statistics, photos, options
        self.state = {name: t.detach().double().numpy() for name, t in model.state_dict().items()}
        self.tensors: dict[str, np.ndarray] = {}
        self.scales: dict[str, float] = {}

    def build(self) -> ModelPackage:
        config, options = self.config, self.options
        peak = max(self.statistics.peak[name] for name in ("sums", *checkpoint_names(config.depth)))
        self.embedded = self._embedding_peak()
        peak = _HEADROOM * peak if config.pre_norm else max(_HEADROOM * peak, self.embedded)
        self.residual = self.scales["residual"] = peak / 32767
        params: dict = {"patch.shift": self._embed(), "layers": []} | self._pre_norm()
        rotary = {"rotary": {"coordinates": self._rotations()}} if config.rotary else {}
        for i in range(config.depth):
            params["layers"].append(self._attention(i) | self._ffn(i))
        if config.classes and not config.head_on_host:
            params["norm.shift"], x = self._norm("norm", "norm", "norm")
            peak = self.statistics.peak["logits"] or 1.0  # a new head may be one of zeros
            logit = self.scales["logit"] = _HEADROOM * peak / 32767
            params["head.shift"] = self._linear(
                "head", self.state["head.weight"], self.state["head.bias"], x, logit
            )
        sizes = ("patch_size", "dim", "depth", "heads", "hidden", "classes", "prefix", "tokens")
        arch = image_keys(config.size) | {key: getattr(config, key) for key in sizes} | {"channels": 3}
        if config.head_on_host:
            arch["classes"] = 0
        pruning = [{"threshold": 0} | step for step in config.pruning]
        meta = {
            "format": FORMAT,
            "name": options.name,
            "architecture": arch,
            "preprocessing": {
                "resize": options.resize,
                "crop": options.crop,
                "mean": list(options.mean),
                "std": list(options.std),
            },
            "classes": list(options.classes),
            "pruning": pruning,
            "ffn2_rule": options.ffn2_rule,
            "tile_rows": options.tile_rows,
            "ffn_chunk": options.ffn_chunk,
            "params": params,
            "scales": self.scales,
            "licence": options.licence,
            "source": options.source,
            "accuracy": {},
        }
        if config.pre_norm:
            meta["pre_norm"] = True
        if config.gated:
            meta["gated"] = True
        meta |= rotary
        if options.tokens:
            answer: dict = {"rows": options.tokens, "layers": list(options.behind)}
            if config.pool == "mean":  # its LayerNorm is not that of tokens
                self.scales["tokens"] = self.residual
            else:
                unit = self.scales["tokens"] = _HEADROOM * self.statistics.peak["tokens"] / 32767
                answer["shift"] = self._affine("tokens", "norm", unit)
            if config.head_on_host:
                meta["host_head"] = self._host_head()
            if config.row_heads is not None:
                meta["row_heads"] = self._row_heads()
            meta["tokens"] = answer
        package = ModelPackage(meta, self.tensors)
        package.check(options.name)
        return package

    def _host_head(self) -> dict:
        """The float network's head, as it is."""
        config = self.config
        head: dict = {"pool": HOST_POOLS[config.pool]}
        steps: list[dict] = []
        if config.pool == "mean":
            steps.append(self._host_norm("norm", "norm"))
        elif config.pool == "attention":
            head["heads"] = config.heads
            self._host_attention()
            inner = [self._host_norm("norm", "attn_pool.norm"), self._host_linear("fc1", "attn_pool.mlp.fc1")]
            inner += [{"op": config.pool_act}, self._host_linear("fc2", "attn_pool.mlp.fc2")]
            steps += [self._host_linear("proj", "attn_pool.proj"), {"op": "residual", "steps": inner}]
        weight, bias = (self.state[f"head.{part}"] for part in ("weight", "bias"))
        # features are a head that changes nothing
        if weight.shape[0] != weight.shape[1] or bias.any() or (weight != np.eye(len(weight))).any():
            steps.append(self._host_linear("linear", "head"))
        return head | {"steps": steps}

    def _row_heads(self) -> dict:
        """The float network's heads of rows, as they are."""
        heads = self.config.row_heads
        assert heads is not None
        found: dict = {"rows": heads.rows, "names": list(heads.names)}
        for name in ROW_HEADS[: 1 + heads.boxes]:
            steps: list[dict] = []
            for layer in range(heads.layers):
                source = f"row_heads.{name}.{2 * layer}"
                steps += [self._host_linear(f"linear{layer}", source, f"row_heads.{name}"), {"op": "relu"}]
            found[name] = [*steps[:-1], *([{"op": "sigmoid"}] if name == "boxes" else [])]
        return found

    def _host_linear(self, name: str, source: str, at: str = "host_head") -> dict:
        self._host_tensors(name, self.state[f"{source}.weight"].T, self.state[f"{source}.bias"], at)
        return {"op": "linear", "name": name, "out": len(self.state[f"{source}.bias"])}

    def _host_norm(self, name: str, source: str) -> dict:
        self._host_tensors(name, self.state[f"{source}.weight"], self.state[f"{source}.bias"])
        return {"op": "layernorm", "name": name, "eps": self.config.eps}

    def _host_tensors(self, name: str, weight: np.ndarray, bias: np.ndarray, at: str = "host_head") -> None:
        for part, value in (("weight", weight), ("bias", bias)):
            self.tensors[f"{at}.{name}.{part}"] = np.ascontiguousarray(value, np.float32)

    def _host_attention(self) -> None:
        """The one query and the keys become a score of every head; a bias of keys changes no softmax."""
        dim, heads = self.config.dim, self.config.heads
        query = self.state["attn_pool.latent"][0, 0] @ self.state["attn_pool.q.weight"].T
        query = (query + self.state["attn_pool.q.bias"]).reshape(heads, -1) / math.sqrt(dim // heads)
        keys, values = np.split(self.state["attn_pool.kv.weight"], 2)
        score = np.einsum("hd,hdi->ih", query, keys.reshape(heads, -1, dim))
        self.tensors["host_head.pool.score"] = np.ascontiguousarray(score, np.float32)
        self._host_tensors("pool", values.T, self.state["attn_pool.kv.bias"][dim:])

    def _scale(self, name: str, levels: int = 127) -> float:
        options = self.options
        self.scales[name] = self.statistics.scale(name, levels, options.method, options.percentile)
        return self.scales[name]

    def _linear(
        self,
        name: str,
        weight: np.ndarray,
        bias: np.ndarray | None,
        x: float,
        y: float | np.ndarray,
        moment: np.ndarray | None = None,
    ) -> int:
        """Quantise a layer; arguments and result as of `rowvit.quant.linear.linear`."""
        parts, shift = linear(weight, bias, x, y, name, moment, self.options.power_of_two)
        self.tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
        return shift

    def _norm(self, name: str, source: str, observed: str) -> tuple[int, float]:
        """Quantise a LayerNorm; returns its shift and the unit of its result."""
        unit = self._scale(observed)
        return self._affine(name, source, unit), unit

    def _affine(self, name: str, source: str, unit: float | np.ndarray) -> int:
        """Gain and offset of a LayerNorm whose result has this unit, or one by channel; returns its shift."""
        gain = self.state[f"{source}.weight"] / unit / 1024  # z has 10 fraction bits
        offset = self.state[f"{source}.bias"] / unit
        peak, shift = np.abs(gain).max(), 31
        while shift and (peak * 2**shift > 32767 or np.abs(offset).max() * 2**shift >= 2**31 - 1):
            shift -= 1
        if peak * 2**shift > 32767:
            raise RowvitError(f"{source}: LayerNorm gain {peak * 1024:g} cannot be represented")
        self.tensors[f"{name}.g"] = np.round(gain * 2**shift).astype(np.int16)
        self.tensors[f"{name}.b"] = np.round(offset * 2**shift).astype(np.int32)
        return shift

    def _pre_norm(self) -> dict[str, int]:
        """The LayerNorm before the blocks: int8 with a unit for every channel."""
        if not self.config.pre_norm:
            return {}
        peak = self.statistics.channels["pre_norm"].astype(np.float64)
        unit = np.maximum(peak, peak.max() / 4096 or 1.0) / 127
        shift = self._affine("pre_norm", "norm_pre", unit)
        self.tensors["pre.mult"], back = multiplier(unit / (127 * self.residual), "pre_norm")
        return {"pre_norm.shift": shift, "pre.shift": back}

    def _patch_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight [in, D] of the patch layer on ``pixel - 128``, and the mean pixels [in] less 128."""
        std, mean = (np.array(value, np.float64) for value in (self.options.std, self.options.mean))
        weight = self.state["patch_embed.proj.weight"].transpose(0, 2, 3, 1) / (255 * std)
        return weight.reshape(self.config.dim, -1).T, np.tile(255 * mean - 128, self.config.patch_size**2)

    def _positions(self, offset: np.ndarray) -> np.ndarray:
        """The position table [N, D] with the class token, and in patches' rows an ``offset`` [D]."""
        pos = self.state["pos_embed"][0].copy()
        pos[: self.config.prefix] += self.state["cls_token"][0]
        pos[self.config.prefix :] += offset
        return pos

    def _embedding_peak(self) -> float:
        """What the sums of the patch embedding have to hold: with headroom those of the calibration photos,
        position table and every chunk included, and those of black and of white patches.
        """
        weight, mean_pixel = self._patch_layer()
        pos = self._positions(self.state["patch_embed.proj.bias"] - mean_pixel @ weight)
        size, start = self.config.patch_size, pos[self.config.prefix :]
        chunks = patch_chunks({"channels": 3, "patch_size": size})

        def peak(patches: np.ndarray) -> float:
            total, found = start, 0.0
            for chunk in chunks:
                added = patches[..., chunk] @ weight[chunk]
                total = total + added
                found = max(found, np.abs(added).max(), np.abs(total).max())
            return found

        photos = range(0, len(self.photos), _PHOTOS)
        ordinary = max(peak(patchify(self.photos[first : first + _PHOTOS], size)) for first in photos)
        plain = max(peak(np.full((1, len(weight)), level)) for level in (-128.0, 127.0))
        return max(_HEADROOM * max(ordinary, np.abs(pos).max()), plain)

    def _embed(self) -> int:
        """Patch layer on ``pixel - 128``, with mean, std and all constants in the position table.

        In units of the residual stream, unless a LayerNorm comes next, for which units do not matter.
        """
        stream = self.embedded / 32767 if self.config.pre_norm else self.residual
        weight, mean_pixel = self._patch_layer()
        moment = _pixel_moment(self.photos, self.config.patch_size, mean_pixel)
        shift = self._linear("patch", weight.T, None, 1.0, stream, moment)
        # the integer layer's result for a mean pixel is subtracted again: exact for such a pixel
        factor = self.tensors["patch.mult"] * 2.0**-shift * stream
        offset = self.state["patch_embed.proj.bias"] - mean_pixel @ self.tensors["patch.weight"] * factor
        self.tensors["pos"] = np.round(self._positions(offset) / stream).astype(np.int16)
        return shift

    def _rotations(self) -> int:
        """Rotations by coordinate, equal ones once, and the coordinates of tokens; how many there are."""
        config = self.config
        rows, columns = (self.state[f"rope.{axis}"] for axis in ("rows", "columns"))
        angles = np.concatenate([np.zeros((1, rows.shape[1])), rows, columns])
        table, number = np.unique(rotations(angles), axis=0, return_inverse=True)
        if len(table) > COORDINATES:
            raise RowvitError(
                f"the rotary positions of {config.grid[0]} x {config.grid[1]} patches have {len(table)}"
                f" coordinates, and {COORDINATES} fit",
                "use a square or smaller image (--image-size)",
            )
        number = number.reshape(-1).astype(np.uint8)
        places = np.full((config.tokens, 2), number[0])
        grid = np.indices(config.grid).reshape(2, -1).T
        places[config.prefix :] = number[1 + grid + np.array([0, len(rows)])]
        self.tensors |= {"rope.table": table, "rope.places": places}
        return len(table)

    def _attention(self, i: int) -> dict[str, int]:
        name, source = f"layers.{i}", f"blocks.{i}"
        params: dict[str, int] = {}
        params["norm1.shift"], x = self._norm(f"{name}.norm1", f"{source}.norm1", f"{name}.norm1")
        weights = np.split(self.state[f"{source}.attn.qkv.weight"], 3)
        biases = np.split(self.state[f"{source}.attn.qkv.bias"], 3)
        units = [self._scale(f"{name}.{part}") for part in "qkv"]
        for part, weight, bias, unit in zip("qkv", weights, biases, units, strict=True):
            finer = ROTATED_BITS if self.config.rotary and part != "v" else 0
            params[f"{part}.shift"] = self._linear(f"{name}.{part}", weight, bias, x, unit * 2.0**-finer)
        head_dim = self.config.dim // self.config.heads
        factor = units[0] * units[1] * math.log2(math.e) * 32 / math.sqrt(head_dim)
        s_mult, params["s_shift"] = multiplier(factor, f"{name} attention logits")
        params["s_mult"] = int(s_mult)
        # means of values are smaller than values: their unit is finer by a power of two
        wanted = self.statistics.scale(f"{name}.o", 127, self.options.method, self.options.percentile)
        finer = value_shift(units[2], wanted, self.options.method != "max")
        params["pv_shift"] = 16 - finer
        o = self.scales[f"{name}.o"] = units[2] * 2.0**-finer
        weight, bias = (self.state[f"{source}.attn.proj.{part}"] for part in ("weight", "bias"))
        params["proj.shift"] = self._linear(f"{name}.proj", weight, bias, o, self.residual)
        return params

    def _ffn(self, i: int) -> dict[str, int]:
        name, source = f"layers.{i}", f"blocks.{i}"
        params: dict[str, int] = {}
        params["norm2.shift"], x = self._norm(f"{name}.norm2", f"{source}.norm2", f"{name}.norm2")
        hidden = self._scale(f"{name}.hidden", 127 if self.config.gated else 255)
        first = self._gates(name, hidden) if self.config.gated else hidden
        for part, unit_in, unit_out in (("fc1", x, first), ("fc2", hidden, self.residual)):
            weight, bias = (self.state[f"{source}.mlp.{part}.{key}"] for key in ("weight", "bias"))
            params[f"{part}.shift"] = self._linear(f"{name}.{part}", weight, bias, unit_in, unit_out)
        params["thr"] = self._threshold(i, f"{name}.hidden", hidden)
        return params

    def _gates(self, name: str, hidden: float) -> np.ndarray:
        """Units of FFN1's channels, whose products have 16 bits below a hidden activation's unit.

        Gate and value get the same room above their peaks, or lose as much of them.
        """
        peaks = [self.statistics.peak[f"{name}.{part}"] or 1.0 for part in ("gate", "value")]
        ratio = peaks[0] / peaks[1]
        units = np.sqrt(hidden * 2.0**-GATE_BITS * np.array([ratio, 1 / ratio]))
        return np.tile(units, self.config.hidden)

    def _threshold(self, i: int, name: str, unit: float) -> int:
        if self.config.thresholds and self.config.thresholds[i] > 0:
            return integer_threshold(self.config.thresholds[i], unit)
        if not self.options.threshold_energy:
            return 1
        magnitudes, weights = self.statistics.magnitudes(name)
        values = np.minimum(np.round(magnitudes / unit), 255).astype(int)
        energy = np.bincount(values, weights, minlength=256) * np.arange(256.0) ** 2
        # dropping everything below thr loses the energy of 1 .. thr-1
        if not energy.any():  # silent on these photos, and perhaps not on others
            return 1
        lost = np.cumsum(energy) / energy.sum()
        return max(1, int(np.searchsorted(lost[:255], self.options.threshold_energy, side="right")))
