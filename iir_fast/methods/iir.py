"""IIR: the two classifiers under inter-intra regulation (this project's reconstruction, see `iir_fast.loss`)."""

from __future__ import annotations

from torch import Tensor

from iir_fast.loss import IIRLoss
from iir_fast.methods.method import Method, MethodLoss, classification_loss
from iir_fast.models import IIRLocalizer


class IIR(Method):
    """Cross-entropies plus IIRLoss, the latter ramped up.

    Args:
        loss: the regulation with its weights.
    """

    def __init__(self, loss: IIRLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, model: IIRLocalizer, inputs: Tensor, labels: Tensor, ramp: float, from_features: bool = False
    ) -> MethodLoss:
        _, out = model(inputs, labels, from_features)
        classification = classification_loss(out, labels)
        terms = self.loss.terms(out)
        log = {"classification": classification, "intra": terms.intra, "inter": terms.inter}
        return MethodLoss(
            classification + ramp * terms.loss,
            {name: value.detach() for name, value in log.items()},
            terms.descriptors.foreground.detach(),
            out,
        )
