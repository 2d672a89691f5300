"""ACoL (Zhang et al., "Adversarial Complementary Learning for Weakly Supervised Object Localization", CVPR 2018).

Classifier B must find what classifier A leaves over: it reads the shared map erased where A's normalized CAM of the
label is at or above delta. The localization map is the larger of the two CAMs at each pixel. Both are the localizer's
own doing (`IIRLocalizer(erase=delta)`), in training as in localization: the loss is that of two classifiers.
"""

from __future__ import annotations

from torch import Tensor

from iir_fast.methods.cam import CAM
from iir_fast.methods.method import MethodLoss
from iir_fast.models import IIRLocalizer


class ACoL(CAM):
    """The two classifiers of a localizer that erases; 0.6, the paper's best delta on ILSVRC, is TrainConfig's."""

    def forward(
        self, model: IIRLocalizer, inputs: Tensor, labels: Tensor, ramp: float, from_features: bool = False
    ) -> MethodLoss:
        if model.head.erase is None:
            raise ValueError("ACoL: the localizer erases nothing; build it with erase, e.g. 0.6.")
        return super().forward(model, inputs, labels, ramp, from_features)
