# SPDX-License-Identifier: Apache-2.0
"""Photos as training sees them: augmented, in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from rowvit.errors import RowvitError
from rowvit.images import decode, upright
from rowvit.photos import Photos, encoded
from rowvit.train.subject import background, subject

_NARROWEST = 3 / 4  # of a random crop's sides, the ratio


@dataclass(frozen=True)
class Augmentation:
    """What training does to a photo.

    Raises
    ------
    RowvitError
        If a value is out of its range.
    """

    crop: float = 1.0  #: smallest share of the photo's area that a random crop keeps; 1 disables cropping
    flip: bool = False  #: mirror half of the photos
    randaugment: int = 0  #: magnitude of RandAugment (two operations), 0 to 30; 0 disables it
    background: float = 0.0  #: share of photos with another background (`rowvit.train.subject`)

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise RowvitError(f"augmentation: crop is {self.crop}, not above 0 and at most 1")
        if not 0 <= self.randaugment <= 30:
            raise RowvitError(f"augmentation: randaugment is {self.randaugment}, not in 0..30")
        if not 0 <= self.background <= 1:
            raise RowvitError(f"augmentation: background is {self.background}, not in 0..1")


class TrainingSet(Dataset):
    """Augmented photos uint8 [3, side, side] and labels.

    The augmentation of a photo depends only on seed, epoch and index, so that neither the number of
    workers and processes nor an interruption changes it.

    Parameters
    ----------
    photos : Photos
    side : int
        Pixels per side.
    resize : str
        "bicubic" or "bilinear".
    augmentation : Augmentation
    seed : int
    masks : bool
        Whether a fourth channel holds the subject's mask.
    crop : float
        Of `rowvit.images.decode`, for photos that the augmentation does not crop itself.
    """

    def __init__(
        self,
        photos: Photos,
        side: int,
        resize: str,
        augmentation: Augmentation,
        seed: int,
        masks: bool = False,
        crop: float = 1.0,
    ) -> None:
        from torchvision.transforms import v2

        self.photos, self.side, self.seed, self.epoch = photos, side, seed, 0
        self.resize, self.crop = resize, crop
        mode = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}[resize]
        steps: list[v2.Transform] = []
        self.masks, self.background = masks, augmentation.background
        self.cropped = augmentation.crop < 1
        # of a photo's shorter side: so the smallest crop has as many pixels as the network, or more
        self.enough = math.ceil(side / math.sqrt(augmentation.crop * _NARROWEST))
        if self.cropped:
            steps.append(v2.RandomResizedCrop(side, scale=(augmentation.crop, 1.0), interpolation=mode))
        if augmentation.flip:
            steps.append(v2.RandomHorizontalFlip())
        self.colours = v2.RandAugment(2, augmentation.randaugment) if augmentation.randaugment else None
        self.transform = v2.Compose(steps) if steps else None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = encoded(self.photos.files[index])
        try:
            if self.cropped:
                with upright(file, self.enough) as opened:
                    image = opened.copy()
            else:
                image = Image.fromarray(decode(file, self.side, self.resize, self.crop))
        except RowvitError as error:
            raise RowvitError(
                f"photo {index} of {self.photos.name}: {error.message}", error.advice
            ) from error
        state = torch.get_rng_state()
        # not torch.manual_seed, which also seeds all other devices and takes longer than the photo
        torch.default_generator.manual_seed(hash((self.seed, self.epoch, int(index))) & 0x7FFF_FFFF)
        pixels = torch.from_numpy(np.array(self._augment(image))).permute(2, 0, 1)
        torch.set_rng_state(state)
        return pixels, int(self.photos.labels[index])

    def _augment(self, image: Image.Image) -> Image.Image:
        """With masks, "RGBA" whose fourth channel is the mask."""
        mask = subject(image) if self.masks or self.background > 0 else None
        if self.transform is not None:
            # not as the fourth channel, by which Pillow multiplies the others when it scales them
            image, mask = self.transform(image, mask) if mask else (self.transform(image), None)
        if mask and torch.rand(()) < self.background:
            image = Image.composite(image, background(*image.size), mask)
        if self.colours is not None:
            image = self.colours(image)
        if mask and self.masks:
            image = image.copy()
            image.putalpha(mask)
        return image

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]] | RowvitError:
        """What a DataLoader asks for; an error is returned, as a worker would only raise its text."""
        try:
            return [self[index] for index in indices]
        except RowvitError as error:
            return error


def collate(samples: list[tuple[Tensor, int]] | RowvitError) -> tuple[Tensor, Tensor] | RowvitError:
    """A batch for the DataLoader: images uint8 [B, 3 or 4, side, side] and labels [B], or the error."""
    if isinstance(samples, RowvitError):
        return samples
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)
