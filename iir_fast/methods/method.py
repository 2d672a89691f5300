"""What a method is: its options, and a loss on a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.head import HeadOutput
from iir_fast.models import IIRLocalizer, LocalizerSpec


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


@dataclass(frozen=True)
class Method(ABC):
    """A training method. Its fields are its options, its name the class's in small letters.

    What it draws at random comes from torch's global CPU generator, which checkpoints hold.
    """

    changes_inputs: ClassVar[bool] = False
    """Whether it changes the images or the backbone: then it cannot train on cached features."""
    hooks_backbone: ClassVar[bool] = False
    """Whether it hooks the backbone at every step: then the backbone cannot be compiled."""
    trains_maps_alone: ClassVar[bool] = False
    """Whether what it adds trains the maps that the classifiers read, and nothing else of the localizer."""

    @property
    def name(self) -> str:
        """What `--method` takes."""
        return type(self).__name__.lower()

    def adapt(self, spec: LocalizerSpec) -> LocalizerSpec:
        """The localizer that the method trains.

        Args:
            spec: a localizer as a configuration describes it.

        Returns:
            The same with the head that the method wants: by default one that learns no thresholds.
        """
        return replace(spec, threshold="mean")

    def networks(self, model: IIRLocalizer) -> nn.Module:
        """What the method trains beside the localizer, by default nothing.

        It stays in the training state: it is not needed to localize.

        Args:
            model: its sizes are read.
        """
        return nn.Module()

    @abstractmethod
    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor, ramp: float) -> MethodLoss:
        """Loss of one batch.

        Args:
            learner: the localizer in training; a frozen backbone is in eval mode and without gradients.
            inputs: normalized images [B,3,H,W], or their shared maps [B,C,h,w] where the learner reads these.
            labels: int64 [B].
            ramp: in [0,1], how far regulation is turned on.

        Returns:
            MethodLoss.
        """


class Learner(nn.Module):
    """A localizer under a method, with what the method trains beside it.

    Args:
        method: what makes a loss of a batch; its own layers, if any, draw from torch's default generator.
        model: the localizer.
        from_features: inputs are shared maps, as a feature cache has them; not for a method that changes inputs.
    """

    def __init__(self, method: Method, model: IIRLocalizer, from_features: bool = False) -> None:
        super().__init__()
        self.method, self.from_features = method, from_features
        self.model, self.networks = model, method.networks(model)

    def read(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, HeadOutput]:
        """The localizer's shared map and its head's output.

        Args:
            inputs: normalized images [B,3,H,W], or shared maps [B,C,h,w].
            labels: int64 [B], the class of each image's CAMs.
        """
        found: tuple[Tensor, HeadOutput] = self.model(inputs, labels, self.from_features)
        return found

    def forward(self, inputs: Tensor, labels: Tensor, ramp: float) -> MethodLoss:
        """The method's loss of one batch, as `Method.loss`.

        Args:
            inputs: normalized images [B,3,H,W], or shared maps [B,C,h,w].
            labels: int64 [B].
            ramp: in [0,1].
        """
        return self.method.loss(self, inputs, labels, ramp)


def classification_loss(out: HeadOutput, labels: Tensor) -> Tensor:
    """Sum of the two classifiers' cross-entropies."""
    return F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)


def check_share(method: str, **shares: float) -> None:
    """Raise a ValueError that names the first of these options that is not in [0,1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{method}: {name} is {share}; accepted is a number in [0,1].")
