"""What the training loop asks of a method."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor

from iir_fast.head import HeadOutput


class MethodLoss(NamedTuple):
    """One batch under one method."""

    loss: Tensor
    """Scalar to minimize."""
    terms: dict[str, Tensor]
    """Scalars without gradient, by name, for the log."""
    foreground: Tensor
    """[B,2,C] without gradient: foreground descriptors, for the class prototypes."""


class Method(Protocol):
    """A loss on the output of the two classifiers."""

    def __call__(self, features: Tensor, out: HeadOutput, labels: Tensor, ramp: float) -> MethodLoss:
        """Loss of one batch.

        Args:
            features: the shared map [B,C,H,W].
            out: the head's output with the CAMs of `labels`.
            labels: int64 [B].
            ramp: in [0,1], how far regulation is turned on.
        """


def classification_loss(out: HeadOutput, labels: Tensor) -> Tensor:
    """Sum of the two classifiers' cross-entropies."""
    return F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
