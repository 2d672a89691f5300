"""HaS (Singh and Lee, "Hide-and-Seek: Forcing a Network to be Meticulous ...", ICCV 2017).

The image is cut into a grid of patches; each is hidden at random, anew for every image and step, so that the network
cannot rely on the most telling part alone. Nothing is hidden in localization.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iir_fast.methods.cam import CAM
from iir_fast.methods.method import Learner, MethodLoss, check_share

REFERENCE_SIDE = 224
"""Side of the images, in pixels, that the published patch sides belong to."""


@dataclass(frozen=True)
class HaS(CAM):
    """The two classifiers on images with hidden patches."""

    changes_inputs = True
    grid: int = 44
    """Side of a patch in pixels of a 224-pixel image, scaled with the image; 16, 32, 44 and 56 in the paper."""
    rate: float = 0.5
    """Probability that a patch is hidden; 0.5 in the paper."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ValueError(f"HaS: grid is {self.grid}; accepted is 1 or more.")
        check_share("HaS", rate=self.rate)

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        return super().loss(learner, self.hide(inputs), labels)

    def hide(self, images: Tensor) -> Tensor:
        """Set patches of images to 0, which is the data's mean, as the paper fills them.

        Args:
            images: normalized, [B,3,H,W].

        Returns:
            [B,3,H,W]; other patches for each image.
        """
        height, width = images.shape[2:]
        side = max(1, round(self.grid * height / REFERENCE_SIDE))
        hidden = torch.rand(len(images), 1, -(-height // side), -(-width // side)) < self.rate
        hidden = hidden.to(images.device).repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
        return images.masked_fill(hidden[:, :, :height, :width], 0.0)
