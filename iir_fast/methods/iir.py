"""IIR: the two classifiers under inter-intra regulation (this project's reconstruction, see `iir_fast.loss`)."""

from __future__ import annotations

from torch import Tensor

from iir_fast.head import HeadOutput
from iir_fast.loss import IIRLoss
from iir_fast.methods.method import MethodLoss, classification_loss


class IIR:
    """Cross-entropies plus IIRLoss, the latter ramped up.

    Args:
        loss: the regulation with its weights.
    """

    def __init__(self, loss: IIRLoss) -> None:
        self.loss = loss

    def __call__(self, features: Tensor, out: HeadOutput, labels: Tensor, ramp: float) -> MethodLoss:
        classification = classification_loss(out, labels)
        terms = self.loss.terms(out.cam_a, out.cam_b, out.features, labels, out.thresholds)
        log = {"classification": classification, "intra": terms.intra, "inter": terms.inter}
        return MethodLoss(
            classification + ramp * terms.loss,
            {name: value.detach() for name, value in log.items()},
            terms.descriptors.foreground.detach(),
        )
