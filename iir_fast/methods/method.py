"""What a method is: its options, and a loss on a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.head import DualCAMHead, HeadOutput
from iir_fast.models import IIRNetwork, NetworkSpec


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


class BatchLoss(NamedTuple):
    """One batch, as an update of the weights wants it."""

    loss: Tensor
    """Scalar to minimize, the one tensor with a gradient."""
    terms: dict[str, Tensor]
    """Scalars by name: the total loss, the method's terms, the accuracy."""
    foreground: Tensor
    """[B,2,C]: foreground descriptors, for the class prototypes."""
    labels: Tensor
    """int64 [B]: the classes they belong to."""


@dataclass(frozen=True)
class Method(ABC):
    """A training method. Its fields are its options; its name is that of the class, in small letters.

    What it draws at random comes from torch's global CPU generator, which checkpoints hold.
    """

    changes_inputs: ClassVar[bool] = False
    """Whether it changes the images or the backbone: then it cannot train on cached features."""
    hooks_backbone: ClassVar[bool] = False
    """Whether it hooks the backbone at every step: then the backbone cannot be compiled."""
    guides_maps: ClassVar[bool] = False
    """Whether it trains the maps that the classifiers read: then something must make these that is not frozen."""

    @property
    def name(self) -> str:
        """What `--method` takes."""
        return type(self).__name__.lower()

    def adapt(self, spec: NetworkSpec) -> NetworkSpec:
        """Give the network `spec` the head that the method trains: by default one that learns no thresholds."""
        return replace(spec, threshold="mean")

    def networks(self, head: DualCAMHead) -> nn.ModuleDict:
        """Make what is trained beside a network with this `head`: by default nothing. Localization does not need it."""
        return nn.ModuleDict()

    @abstractmethod
    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        """Compute the loss of one batch.

        Args:
            learner: the network in training; a frozen backbone is in eval mode and without gradients.
            inputs: normalized images [B,3,H,W], or their shared maps [B,C,h,w] where the learner reads these.
            labels: int64 [B].

        Returns:
            MethodLoss.
        """


class Learner(nn.Module):
    """A network under a method, with what the method trains beside it: what processes keep in step.

    Args:
        method: what makes a loss of a batch; its networks, if any, draw from torch's default generator.
        model: the network.
        from_features: inputs are shared maps, as a feature cache has them; never where the method changes inputs.
    """

    def __init__(self, method: Method, model: IIRNetwork, from_features: bool = False) -> None:
        super().__init__()
        self.method, self.from_features = method, from_features
        self.model, self.networks = model, method.networks(model.head)

    def read(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, HeadOutput]:
        """Return the shared map of `inputs`, and what the head says of the classes `labels`."""
        found: tuple[Tensor, HeadOutput] = self.model(inputs, labels, self.from_features)
        return found

    def forward(self, inputs: Tensor, labels: Tensor) -> BatchLoss:
        """Compute the loss of one batch; `inputs` and `labels` as in `Method.loss`."""
        result = self.method.loss(self, inputs, labels)
        predicted = self.model.head.class_logits(result.out).argmax(dim=1)
        accuracy = predicted.eq(result.out.labels).float().mean()
        terms = {"total": result.loss.detach(), **result.terms, "accuracy": accuracy}
        return BatchLoss(result.loss, terms, result.foreground, result.out.labels)


def classification_loss(out: HeadOutput, labels: Tensor) -> Tensor:
    """Add up the two classifiers' cross-entropies."""
    return F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)


def check_share(method: str, **shares: float) -> None:
    """Raise a ValueError that names the first of these options that is not in [0,1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{method}: {name} is {share}; accepted is a number in [0,1].")
