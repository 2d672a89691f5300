"""A training step on the device under test, or on one that is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iir_fast import DualCAMHead, IIRLoss

CLASSES = 20


@dataclass(frozen=True)
class Step:
    """Head and loss, as in the README, on features of their own."""

    head: DualCAMHead
    loss_fn: IIRLoss
    features: Tensor
    labels: Tensor

    def loss(self) -> Tensor:
        out = self.head(self.features, self.labels)
        loss = F.cross_entropy(out.logits_a, self.labels) + F.cross_entropy(out.logits_b, self.labels)
        return loss + self.loss_fn(out)

    def run(self) -> list[Tensor]:
        """The loss, and the gradients of the features and of all parameters."""
        loss = self.loss()
        return [loss.detach(), *torch.autograd.grad(loss, [self.features, *self.head.parameters()])]


@pytest.fixture
def make_step(device: str) -> Callable[..., Step]:
    """Makes a step: 8 images of 4 classes, 192 channels, maps of 14x14 pixels."""

    def make(place: str = device, dtype: torch.dtype = torch.float32, layout: str = "NCHW", seed: int = 0) -> Step:
        random = torch.Generator().manual_seed(seed)
        features = torch.randn(8, 192, 14, 14, generator=random, device="cpu").to(place, dtype)
        if layout == "NHWC":
            features = features.contiguous(memory_format=torch.channels_last)
        head = DualCAMHead(192, CLASSES, hidden=None)
        weights = {
            name: torch.randn(each.shape, generator=random, device="cpu") for name, each in head.named_parameters()
        }
        head.load_state_dict({name: weight / 14 for name, weight in weights.items()})
        head = head.to(place, torch.float64 if dtype == torch.float64 else torch.float32)
        labels = torch.arange(8, device=place) // 2
        return Step(head, IIRLoss(regulation="agreement"), features.requires_grad_(), labels)

    return make
