# SPDX-License-Identifier: Apache-2.0
"""Rotary positions of other libraries, in the form of `rowvit.model.vit.Rotary`."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.importers.foreign import MIXED, lacking
from rowvit.model.importers.names import HEAD_SIZE, PERIODS
from rowvit.model.vit import ViTConfig

_BASE = 100.0  #: of DINOv3's frequencies
_SAME = 1e-5  # between cosines that are equal but for their rounding
#: of DINOv3 in transformers, which has no tensor for its positions
_DINOV3 = re.compile(r"(model\.)?layer\.\d+\.mlp\.up_proj\.weight")


@dataclass(frozen=True)
class Rope:
    """Angles of patches, and the channels of a head of hd in our order, by which neighbours turn together."""

    rows: Tensor  #: [rows of patches, hd / 4]
    columns: Tensor  #: [columns of patches, hd / 4]
    order: list[int]  #: of each channel of `rowvit.model.vit.Rotary` the library's

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return len(self.rows), len(self.columns)

    def write(self, state: dict[str, Tensor], config: ViTConfig) -> None:
        """Add the angles to a network's tensors, and order the channels of its queries and keys.

        Raises
        ------
        RowvitError
            If heads have another number of channels.
        """
        head = config.dim // config.heads
        if len(self.order) != head:
            raise RowvitError(
                f"the network's rotary positions are for heads of {len(self.order)} channels, and"
                f" {config.heads} heads of {config.dim} have {head}",
                "leave out --heads",
            )
        state |= {"rope.rows": self.rows, "rope.columns": self.columns}
        for name, tensor in state.items():
            joined = re.fullmatch(r"blocks\.\d+\.attn\.qkv\.(weight|bias)", name)
            if joined and tensor.shape[:1] == (3 * config.dim,):
                parts = tensor.unflatten(0, (3, config.heads, head))
                state[name] = torch.cat([parts[:2, :, self.order], parts[2:]]).flatten(0, 2)


def is_dinov3(names: Iterable[str]) -> bool:
    """Whether a state dict is DINOv3's in transformers or of its own repository, before `timm_names`."""
    names = set(names)
    placed = any(name.startswith("embeddings.position_embedding") for name in names)
    return PERIODS in names or (not placed and any(map(_DINOV3.fullmatch, names)))


def of_dinov3(
    state: dict[str, Tensor], size: tuple[int, int], heads: int | None = None, base: float | None = None
) -> Rope | None:
    """DINOv3's positions, None where there is no patch embedding to tell how many patches there are.

    Parameters
    ----------
    state : dict of tensors
        In timm's names; periods, which its own checkpoints have, are removed.
    size : tuple of int
        Height and width of the image, in pixels.
    heads : int, optional
        Where there are no periods; by default one per 64 channels.
    base : float, optional
        Likewise, of frequencies; by default 100.
    """
    periods, patch = state.pop(PERIODS, None), state.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4 or not patch.numel():
        return None
    if periods is None:
        head = len(patch) // heads if heads else HEAD_SIZE
        periods = (base or _BASE) ** (torch.arange(head // 4) / (head / 4))
    rows, columns = (size[axis] // patch.shape[2 + axis] for axis in (0, 1))
    return _dinov3((rows, columns), periods.flatten().float())


def _dinov3(grid: tuple[int, int], periods: Tensor) -> Rope:
    """``periods`` [hd / 4]."""
    rows, columns = (
        2 * math.pi * (2 * (torch.arange(count) + 0.5) / count - 1)[:, None] / periods for count in grid
    )
    count = len(periods)
    return Rope(rows, columns, _order(range(count), range(count, 2 * count), half=True))


def of_timm(rope: Any, grid: tuple[int, int], half: bool) -> Rope:
    """The positions of one of timm's rotary embeddings, a module, for rows and columns of patches.

    Raises
    ------
    RowvitError
        As of `by_axes`.
    """
    with torch.device("cpu"), torch.no_grad():
        if any(buffer.is_meta for buffer in rope.buffers()):
            rope = copy.deepcopy(rope).to_empty(device="cpu")
            rope.init_non_persistent_buffers()
        table = rope.get_embed(shape=list(grid))
        if table.ndim != 2:  # by layers and heads
            raise _mixed()
        sin, cos = table.float().unflatten(0, grid).chunk(2, dim=-1)
        first = slice(cos.shape[-1] // 2) if half else slice(None, None, 2)
        return by_axes(cos[..., first], sin[..., first], half)


def by_axes(cos: Tensor, sin: Tensor, half: bool) -> Rope:
    """The positions of a table of cosines and sines [rows, columns, hd / 2].

    Angles are whole turns off at most, and within half a turn of their neighbours.

    Parameters
    ----------
    cos, sin : Tensor
        By patch, and pair of channels.
    half : bool
        Whether pair j is channels j and j + hd / 2; else it is 2 j and 2 j + 1.

    Raises
    ------
    RowvitError
        If a pair turns by row and column at once, or more than half of them turn by one.
    """
    turns = torch.stack([cos, sin])
    by_row, by_column = (
        ((turns - turns.narrow(axis, 0, 1)).abs().amax(dim=(0, 1, 2)) > _SAME).tolist() for axis in (1, 2)
    )
    pairs = range(cos.shape[-1])
    if any(by_row[pair] and by_column[pair] for pair in pairs):
        raise _mixed()
    rows, columns = ([pair for pair in pairs if found[pair]] for found in (by_row, by_column))
    for pair in pairs:
        if pair not in rows and pair not in columns:  # it does not turn at all
            min(rows, columns, key=len).append(pair)
    if len(rows) != len(columns):
        raise RowvitError(
            f"the network's rotary positions turn {len(rows)} pairs of a head's channels by the row and"
            f" {len(columns)} by the column, expected as many"
        )
    angles = torch.atan2(sin, cos).double().numpy()
    along = np.unwrap(angles[:, 0, rows], axis=0), np.unwrap(angles[0][:, columns], axis=0)
    first, second = (torch.from_numpy(one).float() for one in along)
    return Rope(first, second, _order(rows, columns, half))


def _order(rows: Sequence[int], columns: Sequence[int], half: bool) -> list[int]:
    """A library's channels in our order, by the pairs that turn by the row and by the column."""
    pairs = [pair for both in zip(rows, columns, strict=True) for pair in both]
    return [
        channel
        for pair in pairs
        for channel in ((pair, pair + len(pairs)) if half else (2 * pair, 2 * pair + 1))
    ]


def _mixed() -> RowvitError:
    return RowvitError(f"the network has {lacking([MIXED])}")
