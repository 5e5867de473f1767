# SPDX-License-Identifier: Apache-2.0
"""Losses: soft labels, a teacher's answers and features, rows of W2, attention off the subject."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rowvit.train.recipe import Phase


def mix(images: Tensor, labels: Tensor, classes: int, phase: Phase) -> tuple[Tensor, Tensor]:
    """Mixup: images [B, 3, S, S] and soft labels [B, classes], each blended with another in the batch."""
    targets = nn.functional.one_hot(labels, classes).float()
    if phase.mixup > 0:
        share = torch.distributions.Beta(phase.mixup, phase.mixup).sample().item()
        other = torch.randperm(len(images), device=images.device)
        images = share * images + (1 - share) * images[other]
        targets = share * targets + (1 - share) * targets[other]
    return images, targets


def loss(logits: Tensor, targets: Tensor, taught: Tensor | None, phase: Phase) -> Tensor:
    """Cross entropy with soft labels, and, weighted by ``phase.distill``, with the teacher's logits."""
    hard = nn.functional.cross_entropy(logits, targets, label_smoothing=phase.label_smoothing)
    if taught is None:
        return hard
    t = phase.temperature
    soft = nn.functional.kl_div(
        (logits / t).log_softmax(dim=1),
        (taught / t).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - phase.distill) * hard + phase.distill * t * t * soft


def features(stream: Tensor, tokens: Tensor, taught: Tensor) -> Tensor:
    """Distance of the student's features from the teacher's (as DynamicViT, arXiv 2106.02034, section 3.3).

    Parameters
    ----------
    stream : Tensor [B, live, D]
        Residual stream of the student after its last block.
    tokens : Tensor [B, live]
        Which tokens these are.
    taught : Tensor [B, tokens, D]
        The teacher's, of all tokens.

    Returns
    -------
    Tensor
        Mean squared difference, each token scaled to mean 0 and variance 1 as the next LayerNorm would.
    """
    width = taught.shape[2:]
    same = taught.float().gather(1, tokens[..., None].expand(-1, -1, *width))
    normed = nn.functional.layer_norm(stream.float(), width)
    return nn.functional.mse_loss(normed, nn.functional.layer_norm(same, width))


def rows(hidden: Sequence[Tensor]) -> Tensor:
    """Penalty on rows of W2 that have to be fetched, from all blocks' hidden activations [B, tokens, H].

    The mean over neurons of the largest magnitude among an image's tokens: FFN2 pruning skips the row of
    a neuron that is zero in all of them.
    """
    return torch.stack([h.abs().amax(dim=1).float().mean() for h in hidden]).mean()


def unfocused(scores: Sequence[Tensor], tokens: Sequence[Tensor], share: Tensor) -> Tensor:
    """Penalty on attention off the subject.

    Parameters
    ----------
    scores : sequence of Tensor [B, live]
        Attention of the class token in each pruning block, averaged over heads.
    tokens : sequence of Tensor [B, live]
        Which patches these are, from 0; less than 0 for prefix tokens.
    share : Tensor [B, patches]
        Share of each patch that is subject; photos without any do not count.

    Returns
    -------
    Tensor
        The negative logarithm of the attention on the subject over that on all patches, on average.
    """
    found = []
    for score, index in zip(scores, tokens, strict=True):
        weight = score.float() * (index >= 0)
        hit = (weight * share.gather(1, index.clamp(min=0))).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        found.append(-hit.clamp(min=1e-6).log()[share.amax(dim=1) > 0.5])
    return torch.cat(found).mean() if sum(map(len, found)) else share.new_zeros(())
