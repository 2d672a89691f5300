"""masked_pool: foreground and background descriptors of every sample under each of its soft masks.

f[i,r] = sum_p m F / (sum_p m + eps) and g[i,r] = sum_p (1-m) F / (sum_p (1-m) + eps), eps = 1e-6, not normalized.

Gradient, with u = df / (sum m + eps) and v = dg / (sum (1-m) + eps) for the incoming df, dg:
    dF[i,c,p] = sum_r m[i,r,p] u[i,r,c] + (1 - m[i,r,p]) v[i,r,c]
    dm[i,r,p] = sum_c F[i,c,p] (u - v)[i,r,c] - f.u + g.v
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    accumulation_dtype,
    check_features,
    check_floating,
    check_shape,
    full_precision,
    gradient_like,
)
from iir_fast.kernels.masked_pool import native, reference
from iir_fast.kernels.registration import deferred, register, register_gradient


class RegionDescriptors(NamedTuple):
    """What masked_pool returns; both float32, or float64 when an input is."""

    foreground: Tensor
    """[B,R,C]: mean of the features under each mask."""
    background: Tensor
    """[B,R,C]: mean of the features under each mask's complement."""


def masked_pool(features: Tensor, masks: Tensor) -> RegionDescriptors:
    """Compute mean features under R soft masks per sample and under their complements.

    An empty region gives a zero descriptor. A NaN or inf reaches the results of its own sample only.

    Args:
        features: [B,C,H,W], floating, any strides.
        masks: [B,R,H,W], floating, in [0,1], any strides, R >= 1.

    Returns:
        RegionDescriptors(foreground [B,R,C], background [B,R,C]). Gradients flow to both arguments.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, or C, H, W or R is 0.
    """
    check_arguments(features, masks)
    if selection.calls_reference(native.supports, features, masks):
        with full_precision(features.device):
            return RegionDescriptors(*reference.masked_pool(features, masks))
    return RegionDescriptors(*_call(features, masks))


def check_arguments(features: Tensor, masks: Tensor) -> None:
    """Raise what `masked_pool` raises."""
    check_features("masked_pool", features)
    check_floating("masked_pool", masks=masks)
    batch, _, height, width = features.shape
    check_shape("masked_pool", "masks", masks, f"[{batch},R,{height},{width}]", batch, None, height, width)
    if masks.shape[1] == 0:
        raise ValueError(f"masked_pool: masks has shape {list(masks.shape)}; at least one mask per sample is needed.")


def _fake(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    shape = (features.shape[0], masks.shape[1], features.shape[1])
    dtype = accumulation_dtype(features, masks)
    return features.new_empty(shape, dtype=dtype), features.new_empty(shape, dtype=dtype)


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    given = reference.BackwardInputs(*arguments)
    features, masks = given.features, given.masks
    return (
        gradient_like(features) if given.features_needed else features.new_empty(0),
        masks.new_empty(masks.shape) if given.masks_needed else masks.new_empty(0),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad_foreground: Tensor, grad_background: Tensor) -> tuple[Tensor | None, ...]:
    features_needed, masks_needed = ctx.needs_input_grad
    grad_features, grad_masks = _call_backward(
        grad_foreground, grad_background, *ctx.saved_tensors, features_needed, masks_needed
    )
    return grad_features if features_needed else None, grad_masks if masks_needed else None


_forward = register(
    "masked_pool",
    "(Tensor features, Tensor masks) -> (Tensor, Tensor)",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "masked_pool_backward",
    "(Tensor grad_foreground, Tensor grad_background, Tensor features, Tensor masks, Tensor foreground, "
    "Tensor background, bool features_needed, bool masks_needed) -> (Tensor, Tensor)",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("masked_pool", _forward, _backward, _setup_context)
