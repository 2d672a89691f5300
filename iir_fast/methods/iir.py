"""IIR: the two classifiers under inter-intra regulation (this project's reconstruction, see `iir_fast.loss`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from iir_fast.head import CLASS_MEAN, ThresholdKind
from iir_fast.kernels.inter_intra import Regulation
from iir_fast.loss import IIRLoss
from iir_fast.methods.method import Learner, Method, MethodLoss, classification_loss
from iir_fast.models import NetworkSpec


@dataclass(frozen=True)
class IIR(Method):
    """Cross-entropies plus IIRLoss, the latter weighed by how sure the classifiers are already, `IIRLoss.weight_of`.
    Images are compared across all ranks."""

    intra_weight: float = 5.0
    """Weight of the intra-sample regulation."""
    inter_weight: float = 5.0
    """Weight of the inter-sample criterion."""
    regulation: Regulation = "dual"
    """Intra-sample regulation."""
    temperature: float = 0.1
    """Width of the soft masks, in units of the normalized CAM."""
    threshold: ThresholdKind = "learned"
    """Where masks are cut: between each map's own mean and 0.5 as learned, at the mean, or at 0.5."""

    def __post_init__(self) -> None:
        _ = self.loss_fn  # it refuses what cannot be

    @cached_property
    def loss_fn(self) -> IIRLoss:
        """The regulation with its weights."""
        weights = self.intra_weight, self.inter_weight
        return IIRLoss(*weights, self.regulation, self.temperature, gather=True)

    def adapt(self, spec: NetworkSpec) -> NetworkSpec:
        return replace(spec, threshold=self.threshold, class_mean=CLASS_MEAN)

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        _, out = learner.read(inputs, labels)
        classification = classification_loss(out, labels)
        terms = self.loss_fn.terms(out)
        log = {"classification": classification, "intra": terms.intra, "inter": terms.inter}
        return MethodLoss(
            classification + self.loss_fn.weight_of(out) * terms.loss,
            {name: value.detach() for name, value in log.items()},
            terms.descriptors.foreground.detach(),
            out,
        )
