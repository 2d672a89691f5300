"""masked_pool on the compiled host kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import Factors
from iir_fast.kernels.masked_pool import host

# Each with its complement.
MOST_MASKS = 2


def _serves(features: Tensor, masks: Tensor) -> bool:
    return native.serves(features, masks) and masks.shape[1] <= MOST_MASKS


def forward(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if not _serves(features, masks):
        return host.forward(features, masks)
    regions, mass = host.both_regions(masks)
    _, descriptors, _ = native.sums(features, None, regions)
    foreground, background = (descriptors / mass).chunk(2, dim=1)
    return foreground.contiguous(), background.contiguous()


def backward(
    grad_foreground: Tensor,
    grad_background: Tensor,
    features: Tensor,
    masks: Tensor,
    foreground: Tensor,
    background: Tensor,
    features_needed: bool,
    masks_needed: bool,
) -> tuple[Tensor, Tensor]:
    if not _serves(features, masks):
        return host.backward(
            grad_foreground, grad_background, features, masks, foreground, background, features_needed, masks_needed
        )
    u, v = host.per_mass(grad_foreground, grad_background, masks, torch.float32)
    grad_features, grad_masks = features.new_empty(0), masks.new_empty(0)
    if features_needed:
        grad_features = native.products(features, u - v, masks.flatten(2), v.sum(1))
    if masks_needed:
        grad_masks = _gradient_of_masks(u, v, features, masks, foreground, background)
    return grad_features, grad_masks


def backward_in_factors(
    grad_foreground: Tensor,
    grad_background: Tensor,
    features: Tensor,
    masks: Tensor,
    foreground: Tensor,
    background: Tensor,
) -> tuple[Factors, Tensor]:
    """As in `host`."""
    if not _serves(features, masks):
        return host.backward_in_factors(grad_foreground, grad_background, features, masks, foreground, background)
    u, v = host.per_mass(grad_foreground, grad_background, masks, torch.float32)
    grad_masks = _gradient_of_masks(u, v, features, masks, foreground, background)
    return Factors(u - v, masks.flatten(2), v.sum(1)), grad_masks


def _gradient_of_masks(
    u: Tensor, v: Tensor, features: Tensor, masks: Tensor, foreground: Tensor, background: Tensor
) -> Tensor:
    constant = (background * v - foreground * u).sum(2, keepdim=True)
    along_channels, _, _ = native.sums(features, u - v, None)
    return (along_channels + constant).view(masks.shape).to(masks.dtype)
