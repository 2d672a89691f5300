"""CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers ...", ICCV 2019).

A box of each image is replaced by that of another image of the batch, and the labels are mixed by area:
    lambda ~ Beta(beta, beta), the box's sides sqrt(1 - lambda) of the image's, its centre uniform, clipped at the edges
    loss = s CE(z, y) + (1 - s) CE(z, y'), s the share of the image that is its own
"""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.methods.method import Method, MethodLoss, check_share, classification_loss
from iir_fast.models import IIRLocalizer


class CutMix(Method):
    """The two classifiers on mixed images with mixed labels, one box for the whole batch, as its authors' code has it.

    Class prototypes take a mixed image for one of the class that holds the larger part of it.

    Args:
        beta: both parameters of the Beta distribution; 1.0 in the paper: uniform.
        rate: probability that a batch is mixed; 1.0 in the paper's ImageNet training.

    Raises:
        ValueError: `beta` is not positive, or `rate` is not in [0,1].
    """

    changes_inputs = True

    def __init__(self, beta: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"CutMix: beta is {beta}; accepted is a number above 0.")
        check_share("CutMix", rate=rate)
        self.beta, self.rate = beta, rate

    def forward(
        self, model: IIRLocalizer, inputs: Tensor, labels: Tensor, ramp: float, from_features: bool = False
    ) -> MethodLoss:
        box = self.draw_box(*inputs.shape[2:])
        own = 1 - box.float().mean()
        box, own, order = (drawn.to(inputs.device) for drawn in (box, own, torch.randperm(len(inputs))))
        pasted = labels[order]
        _, out = model(torch.where(box, inputs[order], inputs), torch.where(own >= 0.5, labels, pasted))
        loss = own * classification_loss(out, labels) + (1 - own) * classification_loss(out, pasted)
        return MethodLoss(loss, {"classification": loss.detach()}, out.descriptors.foreground.detach(), out)

    def draw_box(self, height: int, width: int) -> Tensor:
        """A random box; an empty one where the batch is not to be mixed.

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
