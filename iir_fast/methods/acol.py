"""ACoL (Zhang et al., "Adversarial Complementary Learning for Weakly Supervised Object Localization", CVPR 2018).

Classifier B must find what classifier A leaves over: it reads the shared map erased where A's normalized CAM of the
label is at or above delta. The localization map is the larger of the two CAMs at each pixel. Both are the head's own
doing (`iir_fast.models.ErasingHead`), in training as in localization: the loss is that of two classifiers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from iir_fast.methods.cam import CAM
from iir_fast.methods.method import Learner, MethodLoss
from iir_fast.models import ErasingHead, NetworkSpec


@dataclass(frozen=True)
class ACoL(CAM):
    """The two classifiers of a network that erases."""

    threshold: float = 0.6
    """Delta, the value of A's normalized CAM at which features are erased for B; 0.6 is the paper's best on ILSVRC."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"ACoL: threshold is {self.threshold}; accepted is a number in (0,1].")

    def adapt(self, spec: NetworkSpec) -> NetworkSpec:
        return replace(super().adapt(spec), erase=self.threshold)

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        if not isinstance(learner.model.head, ErasingHead):
            raise ValueError("ACoL: the network erases nothing; build it with erase, e.g. 0.6.")
        return super().loss(learner, inputs, labels)
