"""masked_pool on the compiled CPU kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import MASS_EPSILON, Factors, is_fake
from iir_fast.kernels.masked_pool.reference import BackwardInputs

# Each with its complement.
MAX_MASKS = 2
# Below this share of the pixels a region's gradient is so large that m (u - v) + v would cancel.
MIN_SHARE = 0.01


def supports(features: Tensor, masks: Tensor) -> bool:
    """Tell whether the kernels take these."""
    return native.supports(features, masks) and masks.shape[1] <= MAX_MASKS


def forward(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    regions, mass = _both_regions(masks)
    _, descriptors, _ = native.sums(features, None, regions)
    foreground, background = (descriptors / mass).chunk(2, dim=1)
    return foreground.contiguous(), background.contiguous()


def backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    given = BackwardInputs(*arguments)
    features, masks = given.features, given.masks
    regions, mass = _both_regions(masks)
    u, v = _per_mass(given, mass)
    grad_features, grad_masks = features.new_empty(0), masks.new_empty(0)
    if given.features_needed:
        if not is_fake(mass) and bool(mass.min() < MIN_SHARE * regions.shape[2]):
            factors = Factors(torch.cat((u, v), dim=1), regions, torch.zeros_like(v[:, 0]))
        else:
            factors = Factors(u - v, masks.flatten(2), v.sum(1))
        grad_features = native.products(features, *factors)
    if given.masks_needed:
        grad_masks = _gradient_of_masks(u, v, given)
    return grad_features, grad_masks


def backward_in_factors(given: BackwardInputs) -> tuple[Factors, Tensor]:
    """Compute both gradients, that of the features not written: m u + (1 - m) v = m (u - v) + v."""
    u, v = _per_mass(given, _both_regions(given.masks)[1])
    return Factors(u - v, given.masks.flatten(2), v.sum(1)), _gradient_of_masks(u, v, given)


def _both_regions(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Stack masks and complements [B,2R,P], with their masses [B,2R,1]."""
    flat = masks.flatten(2).float()
    # The complement gets its own sum: total minus foreground would cancel where a mask covers nearly everything.
    regions = torch.cat((flat, 1 - flat), dim=1)
    return regions, regions.sum(2, keepdim=True) + MASS_EPSILON


def _per_mass(given: BackwardInputs, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Compute u and v [B,R,C]: the gradients of the descriptors over the masses [B,2R,1] of masks and complements."""
    inside_mass, outside_mass = mass.chunk(2, dim=1)
    return given.grad_foreground.float() / inside_mass, given.grad_background.float() / outside_mass


def _gradient_of_masks(u: Tensor, v: Tensor, given: BackwardInputs) -> Tensor:
    constant = (given.background * v - given.foreground * u).sum(2, keepdim=True)
    along_channels, _, _ = native.sums(given.features, u - v, None)
    return (along_channels + constant).view(given.masks.shape).to(given.masks.dtype)
