"""CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016) with two classifiers.

The baseline: nothing but the two cross-entropies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.functional import masked_pool, regulate
from iir_fast.head import HeadOutput
from iir_fast.methods.method import MethodLoss, classification_loss


class CAM:
    """The two classifiers without any regulation."""

    def __call__(self, features: Tensor, out: HeadOutput, labels: Tensor, ramp: float) -> MethodLoss:
        loss = classification_loss(out, labels)
        with torch.no_grad():
            masks = regulate(out.cam_a, out.cam_b, out.thresholds).masks
            foreground = masked_pool(features, masks).foreground
        return MethodLoss(loss, {"classification": loss.detach()}, foreground)
