# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classifiers: transformers computes the text side of CLIP or SigLIP once; it becomes the head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rowvit.errors import RowvitError
from rowvit.model.adapt import rebuild
from rowvit.model.vit import VisionTransformer

_IMAGES = 16  # of noise, by which the length of an image's embedding is estimated


def with_prompts(model: VisionTransformer, folder: Path, prompts: Sequence[str]) -> VisionTransformer:
    """The network with prompts as its classes.

    A class's logit is the network's similarity of image and prompt, times an image's embedding's length over
    the usual one: the order of the classes is CLIP's or SigLIP's, and the probabilities are nearly CLIP's.

    Parameters
    ----------
    model : VisionTransformer
        The image side, whose head is the projection, or for SigLIP nothing.
    folder : Path
        The whole network and its tokenizer, as transformers writes them.
    prompts : sequence of str
        Such as "a photo of a cat".

    Raises
    ------
    RowvitError
        transformers cannot read network or tokenizer, or the network has no text side.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise RowvitError("prompts need transformers", "pip install transformers") from error
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        whole = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        names, padding = ["input_ids", "attention_mask"], dict[str, Any](padding=True)
        if whole.config.model_type.startswith("siglip"):  # trained with padding up to the longest, and seen
            most = whole.config.text_config.max_position_embeddings
            names, padding = names[:1], {"padding": "max_length", "max_length": most}
        tokens = tokenizer(list(prompts), truncation=True, return_tensors="pt", **padding)
        with torch.inference_mode():
            text = whole.get_text_features(**{key: tokens[key] for key in names})
            scale, bias = whole.logit_scale.exp(), getattr(whole, "logit_bias", torch.zeros(()))
    except Exception as error:  # transformers raises many types
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RowvitError(
            f"{folder}: transformers cannot compute the prompts ({why})",
            "pass a folder with CLIP's both sides and its tokenizer",
        ) from error
    text = getattr(text, "pooler_output", text)
    if not isinstance(text, Tensor) or text.shape != (len(prompts), model.config.classes):
        raise RowvitError(
            f"{folder}: the prompts' embeddings do not fit the images' ({model.config.classes})"
        )
    noise = torch.randn(_IMAGES, 3, *model.config.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        usual = model.eval()(noise).norm(dim=1).mean()
    text = scale / usual * text / text.norm(dim=1, keepdim=True)
    head = {"head.weight": text @ model.head.weight, "head.bias": text @ model.head.bias + bias}
    return rebuild(model, replace(model.config, classes=len(prompts)), head)
