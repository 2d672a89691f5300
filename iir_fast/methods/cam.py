"""CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016) with two classifiers.

The baseline: nothing but the two cross-entropies.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iir_fast.methods.method import Learner, Method, MethodLoss, classification_loss


@dataclass(frozen=True)
class CAM(Method):
    """The two classifiers without any regulation."""

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        _, out = learner.read(inputs, labels)
        loss = classification_loss(out, labels)
        return MethodLoss(loss, {"classification": loss.detach()}, out.descriptors.foreground.detach(), out)
