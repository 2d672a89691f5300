"""CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers ...", ICCV 2019).

A box of each image is replaced by that of another image of the batch, and the labels are mixed by area:
    lambda ~ Beta(beta, beta), the box's sides sqrt(1 - lambda) of the image's, its centre uniform, clipped at the edges
    loss = s CE(z, y) + (1 - s) CE(z, y'), s the share of the image that is its own
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iir_fast.methods.method import Learner, Method, MethodLoss, check_share, classification_loss


@dataclass(frozen=True)
class CutMix(Method):
    """The two classifiers on mixed images with mixed labels, one box for the whole batch, as its authors' code has it.

    Class prototypes take a mixed image for one of the class that holds the larger part of it.
    """

    changes_inputs = True
    beta: float = 1.0
    """Both parameters of the Beta distribution of the share that stays; 1.0 in the paper: uniform."""
    rate: float = 1.0
    """Probability that a batch is mixed; 1.0 in the paper's ImageNet training."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"CutMix: beta is {self.beta}; accepted is a number above 0.")
        check_share("CutMix", rate=self.rate)

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        box = self.draw_box(*inputs.shape[2:])
        own = 1 - box.float().mean()
        box, own, order = (drawn.to(inputs.device) for drawn in (box, own, torch.randperm(len(inputs))))
        pasted = labels[order]
        _, out = learner.read(torch.where(box, inputs[order], inputs), torch.where(own >= 0.5, labels, pasted))
        loss = own * classification_loss(out, labels) + (1 - own) * classification_loss(out, pasted)
        return MethodLoss(loss, {"classification": loss.detach()}, out.descriptors.foreground.detach(), out)

    def draw_box(self, height: int, width: int) -> Tensor:
        """Draw a random box; an empty one where the batch is not to be mixed.

        Args:
            height: of the images, in pixels.
            width: of the images, in pixels.

        Returns:
            Bool [H,W], true inside the box.
        """
        mixed = torch.rand(()) < self.rate
        side = (1 - torch.distributions.Beta(self.beta, self.beta).sample()).sqrt() * mixed
        inside = []
        for length in (height, width):
            half, centre, position = (side * length).int() // 2, torch.randint(length, ()), torch.arange(length)
            inside.append((position >= centre - half) & (position < centre + half))
        return inside[0].unsqueeze(1) & inside[1]
