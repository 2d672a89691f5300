"""The two steps whose memory is compared: with this package's kernels, and as one would otherwise write it.

Both compute the cross-entropies of two classifiers plus `iir_loss` with weights of 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iir_fast.functional import inter_intra, regulate
from iir_fast.head import DualCAMHead
from iir_fast.kernels.contract import MASS_EPSILON


class Step(NamedTuple):
    """A forward pass."""

    loss: Tensor
    """Scalar."""
    kept: tuple[Tensor, ...]
    """What the training loop refers to until the loss has gone backward, whether autograd needs it or not."""


def step_with_kernels(head: DualCAMHead, features: Tensor, labels: Tensor, ranks: int = 1) -> Step:
    """Do what `DualCAMHead` and `iir_loss` do with features [B,C,H,W] and labels int64 [B].

    Of `ranks` processes, whose descriptors are compared, all hold the same ones here.
    """
    out = head(features, labels)
    foreground, background = (torch.cat([each] * ranks) for each in out.descriptors)
    terms = out.regulated.terms
    regulation = inter_intra(terms, foreground, background, labels.repeat(ranks), intra_weight=1.0, inter_weight=1.0)
    loss = _cross_entropies(out.logits_a, out.logits_b, labels) + regulation.loss
    return Step(loss, (*out[:4], *out.regulated, *out.descriptors))


def step_without_kernels(head: DualCAMHead, features: Tensor, labels: Tensor) -> Step:
    """Do the same by class maps, which stay for localization, masked features, and differences of all pairs of images.

    It is the naive peer of the benchmarks, on any head. Images are compared with those of their own batch only.
    """
    branches = [branch(features) for branch in head.branches] or [features, features]
    maps_a, maps_b = (
        F.conv2d(each, weight[:, :, None, None], bias)
        for each, weight, bias in zip(branches, head.weight, head.bias, strict=True)
    )
    logits_a, logits_b = (F.adaptive_avg_pool2d(each, 1).flatten(1) for each in (maps_a, maps_b))
    samples = torch.arange(len(labels))
    cam_a, cam_b = (each[samples, labels].float() for each in (maps_a, maps_b))
    terms, masks, *_ = regulate(cam_a, cam_b)
    descriptors = (_descriptors_of_masked_features(features, mask) for mask in masks.split(1, dim=1))
    foreground, background = (torch.cat(each) for each in zip(*descriptors, strict=True))
    inter = _similarity_by_differences(foreground, background, labels.repeat(2))
    loss = _cross_entropies(logits_a, logits_b, labels) + terms[:, 0].mean() + inter
    return Step(loss, (maps_a, maps_b))


def _cross_entropies(logits_a: Tensor, logits_b: Tensor, labels: Tensor) -> Tensor:
    # In float32 under autocast too, as on a GPU.
    return F.cross_entropy(logits_a.float(), labels) + F.cross_entropy(logits_b.float(), labels)


def _descriptors_of_masked_features(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Unit foreground and background [B,C] of features [B,C,H,W] under one classifier's mask [B,1,H,W]."""
    foreground = features * mask.to(features.dtype)
    background = features * (1 - mask).to(features.dtype)
    inside = F.normalize(foreground.sum(dim=(2, 3)).float() / (mask.sum(dim=(2, 3)) + MASS_EPSILON), dim=1)
    outside = F.normalize(background.sum(dim=(2, 3)).float() / ((1 - mask).sum(dim=(2, 3)) + MASS_EPSILON), dim=1)
    return inside, outside


def _similarity_by_differences(inside: Tensor, outside: Tensor, groups: Tensor) -> Tensor:
    """Compute the inter-sample criterion of unit descriptors [N,C]."""
    distances = (inside[:, None] - inside).square().sum(dim=2)
    contrast = (inside - F.normalize(outside + outside.mean(dim=0), dim=1)).square().sum(dim=1)
    same = (groups[:, None] == groups) & ~torch.eye(len(groups), dtype=torch.bool)
    losses = F.softplus(distances - (contrast[:, None] + contrast) / 2)
    return (losses * same).sum() / same.sum().clamp(min=1)
