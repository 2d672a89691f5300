"""masked_pool in closed form on ATen: one product with masks and complements stacked, one read of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import MASS_EPSILON, Factors, accumulation_dtype, gradient_like


def both_regions(masks: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Masks and complements [B,2R,P] and their masses [B,2R,1]."""
    flat = masks.flatten(2).to(dtype)
    # The complement gets its own sum: total minus foreground would cancel where a mask covers nearly everything.
    regions = torch.cat((flat, 1 - flat), dim=1)
    return regions, regions.sum(2, keepdim=True) + MASS_EPSILON


def forward(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, masks)
    regions, mass = both_regions(masks, dtype)
    descriptors = torch.bmm(regions, features.flatten(2).transpose(1, 2).to(dtype)) / mass
    foreground, background = descriptors.chunk(2, dim=1)
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
    dtype = accumulation_dtype(features, masks)
    regions, mass = both_regions(masks, dtype)
    per_mass = torch.cat((grad_foreground, grad_background), dim=1).to(dtype) / mass
    grad_features, grad_masks = features.new_empty(0), masks.new_empty(0)
    if features_needed:
        product = torch.bmm(per_mass.transpose(1, 2), regions).unflatten(2, features.shape[2:])
        grad_features = gradient_like(features).copy_(product)
    if masks_needed:
        u, v = per_mass.chunk(2, dim=1)
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
    """Both gradients, that of the features not written: m u + (1 - m) v = m (u - v) + v."""
    u, v = per_mass(grad_foreground, grad_background, masks, accumulation_dtype(features, masks))
    grad_masks = _gradient_of_masks(u, v, features, masks, foreground, background)
    return Factors(u - v, masks.flatten(2).to(u.dtype), v.sum(1)), grad_masks


def _gradient_of_masks(
    u: Tensor, v: Tensor, features: Tensor, masks: Tensor, foreground: Tensor, background: Tensor
) -> Tensor:
    constant = (background * v - foreground * u).sum(2, keepdim=True)
    product = torch.baddbmm(constant, u - v, features.flatten(2).to(u.dtype))
    return product.view(masks.shape).to(masks.dtype)


def per_mass(
    grad_foreground: Tensor, grad_background: Tensor, masks: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """u and v [B,R,C]: the gradients of the descriptors over the masses of masks and complements."""
    _, mass = both_regions(masks, dtype)
    inside_mass, outside_mass = mass.chunk(2, dim=1)
    return grad_foreground.to(dtype) / inside_mass, grad_background.to(dtype) / outside_mass
