# SPDX-License-Identifier: Apache-2.0
"""What of the array a network cannot fill: lanes without a channel, and rows without a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rowvit.compiler.plan import Plan
from rowvit.hardware.config import HardwareConfig


@dataclass(frozen=True)
class Fill:
    """Share of the lanes that have something to do while one kind of product runs, and why not all."""

    part: str
    share: float
    why: str


def fills(meta: dict[str, Any], config: HardwareConfig) -> list[Fill]:
    """What cannot be filled: of every kind of product, if it is one lane in 200 or more.

    Parameters
    ----------
    meta : dict
        Of a package or a program: the sizes of the network and the tokens that it keeps at most.
    config : HardwareConfig

    Raises
    ------
    RowvitError
        The network does not fit the configuration.
    """
    plan = Plan(meta | {"name": meta.get("model", meta)["name"]}, config)
    lanes, groups, tile = config.lanes, config.groups, config.tile
    hidden, classes = plan.hidden, plan.arch["classes"]

    def channels(part: str, used: int, offered: int, what: str) -> Fill:
        return Fill(part, used / offered, f"{used:,} {what} on {offered:,} lanes, in tiles of {tile}")

    offered = -(-plan.heads // groups) * tile
    why = []
    if plan.head_dim < lanes:
        why.append(f"a head has {plan.head_dim} channels, and takes {lanes} lanes")
    if plan.heads % groups:
        why.append(f"{plan.heads} head{'s' * (plan.heads > 1)} on {groups} groups")
    chunks = [plan.chunk] * (hidden // plan.chunk) + [hidden % plan.chunk] * (hidden % plan.chunk > 0)
    neurons = "hidden neurons and gates" if plan.each > 1 else "hidden neurons"
    tokens = [before for before, _ in plan.bounds]
    rows = [live for both in plan.bounds for live in both]
    padded = sum(-(-live // lanes) * lanes for live in tokens)
    heads = plan.heads / (-(-plan.heads // groups) * groups)
    found = [
        channels("patches, projection, FFN2", plan.dim, plan.dim_tiles * tile, "channels"),
        Fill("Q, K, V and P V", plan.dim / offered, " and ".join(why)),
        Fill(
            "Q K^T",
            heads * sum(tokens) / padded,
            f"{_numbers(tokens)} tokens in steps of {lanes} lanes"
            + (f", {why[-1]}" if plan.heads % groups else ""),
        ),
        channels("FFN1", hidden, sum(-(-chunk // tile) * tile for chunk in chunks), neurons),
        Fill(
            "rows of all others",
            sum(rows) / sum(config.bands(live) * config.rows for live in rows),
            f"{_numbers(rows)} tokens in bands of {config.rows} rows",
        ),
    ]
    if classes:
        padded = -(-classes // tile) * tile * config.rows
        found.append(Fill("head", classes / padded, f"{classes} classes, and one row of {config.rows}"))
    if len(chunks) > 1:
        found[3] = Fill(found[3].part, found[3].share, f"{found[3].why}, by chunks of {plan.chunk}")
    return [one for one in found if one.share <= 0.995]


def _numbers(values: list[int]) -> str:
    """The different ones, largest first."""
    different = sorted(set(values), reverse=True)
    return ", ".join(map(str, different[:4])) + (f" ... {different[-1]}" if len(different) > 4 else "")
