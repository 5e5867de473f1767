# SPDX-License-Identifier: Apache-2.0
"""What a float network prunes: tokens, by a schedule, and rows of W2, by a rule and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rowvit.model.vit import VisionTransformer


def set_pruning(model: VisionTransformer, pruning: Sequence[dict]) -> None:
    """Set a network's token pruning schedule, in place."""
    for layer, block in enumerate(model.blocks):
        block.keep = next((step["keep"] for step in pruning if step["layer"] == layer), None)
    model.config = replace(model.config, pruning=tuple(pruning))


def changed(model: VisionTransformer, **changes: Any) -> VisionTransformer:
    """A copy of a network, for inference, with other fields of its configuration."""
    copy = VisionTransformer(replace(model.config, **changes)).eval()
    copy.load_state_dict(model.state_dict())
    return copy


def set_ffn2(model: VisionTransformer, rule: str, thresholds: Sequence[float] = ()) -> None:
    """Set a network's FFN2 rule and thresholds, in place."""
    for layer, block in enumerate(model.blocks):
        block.mlp.threshold = thresholds[layer] if thresholds else 0.0
    model.config = replace(model.config, ffn2_rule=rule, thresholds=tuple(thresholds))
