"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.head import HeadOutput
from iir_fast.models import IIRLocalizer


class MethodLoss(NamedTuple):
    """One batch under one method."""

    loss: Tensor
    """Scalar to minimize."""
    terms: dict[str, Tensor]
    """Scalars without gradient, by name, for the log."""
    foreground: Tensor
    """[B,2,C] without gradient: foreground descriptors of the classes `out.labels`, for the class prototypes."""
    out: HeadOutput
    """What the head said of the batch."""


class Method(nn.Module, ABC):
    """A loss on a batch. What it draws at random comes from torch's global CPU generator, which checkpoints hold.

    Its own parameters, if any, are trained with the localizer's and stay in the training state: they are not needed
    to localize.
    """

    changes_inputs: ClassVar[bool] = False
    """Whether it changes the images or the backbone: then it cannot train on cached features."""

    @abstractmethod
    def forward(
        self, model: IIRLocalizer, inputs: Tensor, labels: Tensor, ramp: float, from_features: bool = False
    ) -> MethodLoss:
        """Loss of one batch.

        Args:
            model: the localizer in training; a frozen backbone is in eval mode and without gradients.
            inputs: normalized images [B,3,H,W], or their shared maps [B,C,h,w] with `from_features`.
            labels: int64 [B].
            ramp: in [0,1], how far regulation is turned on.
            from_features: `inputs` holds shared maps; never where `changes_inputs`.

        Returns:
            MethodLoss.
        """


def classification_loss(out: HeadOutput, labels: Tensor) -> Tensor:
    """Sum of the two classifiers' cross-entropies."""
    return F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)


def check_share(method: str, **shares: float) -> None:
    """Raise a ValueError that names the first of these options that is not in [0,1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{method}: {name} is {share}; accepted is a number in [0,1].")
