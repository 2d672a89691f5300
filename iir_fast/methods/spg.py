"""SPG (Zhang et al., "Self-produced Guidance for Weakly-supervised Object Localization", ECCV 2018).

Small networks learn which pixels are the object from seeds that the previous one in the chain is sure of:
    attention of the classification branch -> B2 -> B1,  mean of B1 and B2 -> C
A map M in [0,1] gives the seeds: foreground where M > high (where no pixel is, M > 0.7 max M), background where
M < low, ignored in between. The loss of each network is the binary cross-entropy over its seeds; all have weight 1.

What differs from the paper, whose Inception-v3 has one classifier and B1 on a shallower map than B2: here the attention
is the mean of both classifiers' normalized label CAMs, normalized again; B1 and B2 read the shared map, each through a
convolution of its own; C reads the maps of both classifiers' branches, side by side; losses are taken at the feature
map's resolution, not at 224 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.functional import regulate
from iir_fast.head import DualCAMHead
from iir_fast.methods.method import Learner, Method, MethodLoss, check_share, classification_loss

Thresholds: TypeAlias = tuple[float, float, float]
STAGES = ("B2", "B1", "C")
WIDTH = 512
"""Channels of the authors' networks, for a head without branches."""
FALLBACK = 0.7
"""Share of a map's maximum above which pixels are foreground seeds where no pixel reaches the threshold."""


@dataclass(frozen=True)
class SPG(Method):
    """The two classifiers with self-produced guidance."""

    guides_maps = True
    high: Thresholds = (0.7, 0.5, 0.7)
    """Thresholds of foreground seeds for B2, B1 and C; those of the authors' code."""
    low: Thresholds = (0.05, 0.05, 0.1)
    """Thresholds of background seeds for B2, B1 and C; those of the authors' code."""

    def __post_init__(self) -> None:
        for stage, high, low in zip(STAGES, self.high, self.low, strict=True):
            check_share("SPG", **{f"high of {stage}": high, f"low of {stage}": low})

    def networks(self, head: DualCAMHead) -> nn.ModuleDict:
        """B1, B2, what is on top of both, and C, as wide as the head's branches, else 512."""
        width = head.hidden or WIDTH
        read = 2 * head.hidden if head.hidden else head.in_channels
        return nn.ModuleDict(
            {
                "b1": _convolution(head.in_channels, width),
                "b2": _convolution(head.in_channels, width),
                "b_top": nn.Sequential(_convolution(width, width), nn.Conv2d(width, 1, kernel_size=1)),
                "c": nn.Sequential(_convolution(read, width), nn.Conv2d(width, 1, kernel_size=1)),
            }
        )

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        features, out = learner.read(inputs, labels)
        networks = learner.networks
        b1, b2 = (networks["b_top"](networks[name](features)) for name in ("b1", "b2"))
        c = networks["c"](torch.cat(out.branch_maps, dim=1))
        with torch.no_grad():
            attention = regulate(out.cam_a, out.cam_b).maps.mean(dim=1)
            attention = regulate(attention, attention).maps[:, :1]
            guides = (attention, b2.sigmoid(), (b1.sigmoid() + b2.sigmoid()) / 2)
        stages = zip((b2, b1, c), guides, self.high, self.low, strict=True)
        guidance = torch.stack([seed_loss(*stage) for stage in stages]).sum()
        classification = classification_loss(out, labels)
        terms = {"classification": classification.detach(), "guidance": guidance.detach()}
        return MethodLoss(classification + guidance, terms, out.descriptors.foreground.detach(), out)


def seed_loss(logits: Tensor, guide: Tensor, high: float, low: float) -> Tensor:
    """Binary cross-entropy of logits [B,1,h,w] over the seeds of a guide [B,1,h,w] in [0,1], mean over all seeds.

    A pixel that is both kinds of seed, as the fallback may make it, is background. No seeds at all give 0.
    """
    certain = guide > high
    fallback = guide > FALLBACK * guide.amax(dim=(2, 3), keepdim=True)
    background = guide < low
    foreground = torch.where(certain.any(dim=3, keepdim=True).any(dim=2, keepdim=True), certain, fallback) & ~background
    seeds = (foreground | background).float()
    losses = F.binary_cross_entropy_with_logits(logits.float(), foreground.float(), reduction="none")
    return (losses * seeds).sum() / seeds.sum().clamp(min=1)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.ReLU(inplace=True))
