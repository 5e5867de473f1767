# SPDX-License-Identifier: Apache-2.0
"""Every part of a network on its own: it sees what the teacher's parts before it gave.

So no part waits until those before it have learned, and none makes up for their errors.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rowvit.model.vit import VisionTransformer


class Apart(nn.Module):
    """A network whose embedding, attentions and FFNs are each compared with the teacher's.

    Parameters
    ----------
    model : VisionTransformer
        With as many channels, blocks and tokens as the teacher.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, streams: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and logits.

        Parameters
        ----------
        images : Tensor [B, 3, H, W]
            Normalised.
        streams : mapping of Tensor [B, tokens, D]
            The teacher's residual stream behind "embed", "layers.{i}.attn" and "layers.{i}.ffn".

        Returns
        -------
        loss : Tensor
            The mean over all parts of the squared error of what a part adds to the stream, over its variance.
        logits : Tensor [B, classes]
            Of the head, on the teacher's stream behind the last block.
        """
        model, x = self.model, streams["embed"]
        losses = [_error(model.embed(images), x)]
        for layer, block in enumerate(model.blocks):
            turn = model.turn(model.all_tokens(x))
            middle, after = streams[f"layers.{layer}.attn"], streams[f"layers.{layer}.ffn"]
            losses.append(_error(block.attend(x, turn=turn)[0] - x, middle - x))
            losses.append(_error(block.feed(middle) - middle, after - middle))
            x = after
        return sum(losses[1:], losses[0]) / len(losses), model.classify(x)


def _error(found: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.mse_loss(found.float(), wanted.float()) / wanted.float().var().clamp(min=1e-9)
