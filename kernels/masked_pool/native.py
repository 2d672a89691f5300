"""masked_pool on the compiled host kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

from torch import Tensor

from iir_fast.kernels import native
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
    u, v = per_mass(grad_foreground, grad_background, masks)
    grad_features, grad_masks = features.new_empty(0), masks.new_empty(0)
    if features_needed:
        grad_features = native.products(features, *factors(u, v, masks))
    if masks_needed:
        constant = (background * v - foreground * u).sum(2, keepdim=True)
        along_channels, _, _ = native.sums(features, u - v, None)
        grad_masks = (along_channels + constant).view(masks.shape).to(masks.dtype)
    return grad_features, grad_masks


def factors(u: Tensor, v: Tensor, masks: Tensor) -> native.Factors:
    """The gradient of the features, of what `per_mass` gives: m u + (1 - m) v = m (u - v) + v."""
    return native.Factors(u - v, masks.flatten(2), v.sum(1))


def per_mass(grad_foreground: Tensor, grad_background: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """u and v [B,R,C]: the gradients of the descriptors over the masses of masks and complements, float32."""
    _, mass = host.both_regions(masks)
    inside_mass, outside_mass = mass.chunk(2, dim=1)
    return grad_foreground / inside_mass, grad_background / outside_mass
