"""CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016) with two classifiers.

The baseline: nothing but the two cross-entropies.
"""

from __future__ import annotations

from torch import Tensor

from iir_fast.methods.method import Method, MethodLoss, classification_loss
from iir_fast.models import IIRLocalizer


class CAM(Method):
    """The two classifiers without any regulation."""

    def forward(
        self, model: IIRLocalizer, inputs: Tensor, labels: Tensor, ramp: float, from_features: bool = False
    ) -> MethodLoss:
        _, out = model(inputs, labels, from_features)
        loss = classification_loss(out, labels)
        return MethodLoss(loss, {"classification": loss.detach()}, out.descriptors.foreground.detach(), out)
