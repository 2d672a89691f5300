"""subgroup_similarity: the co-segmentation criterion over all same-group pairs, without the matrix of pairs.

With unit vectors f, g of each foreground and background descriptor, over ordered pairs i != j of one group:
    a_ij = ||f_i - f_j||^2 - (||f_i - g_i||^2 + ||f_j - g_j||^2) / 2
    loss = mean_ij softplus(a_ij)
(co-attention form of co-segmentation: Hsu et al., "Co-attention CNNs for Unsupervised Object Co-segmentation",
IJCAI 2018).

Gradient, with s_ij = sigmoid(a_ij) / pairs on pairs, r_i = sum_j s_ij and s symmetric:
    dg_i = 2 r_i (f_i - g_i)
    df_i = 4 (r_i f_i - sum_j s_ij f_j) - dg_i
and through x / |x| for both: dx = (du - u (u.du)) / |x|.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    accumulation_dtype,
    check_floating,
    check_integer_vector,
    check_shape,
    full_precision,
)
from iir_fast.kernels.registration import deferred, register, register_gradient
from iir_fast.kernels.subgroup_similarity import native, reference


def subgroup_similarity(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    """Pull the foreground descriptors of a group together and away from their backgrounds.

    Both arguments are L2-normalized here; a vector of norm <= 1e-12 stays zero, with zero gradient. Without any
    same-group pair the result is a zero that is connected to the graph. A NaN or inf in a descriptor whose group has
    two members or more makes the result NaN; in any group it may make every gradient NaN.

    Args:
        foreground: [N,C], floating: descriptors of N regions.
        background: [N,C], floating: descriptors of the N complements.
        groups: int64 [N], any values: regions with equal values are one subgroup.

    Returns:
        Scalar, float32, or float64 when a descriptor is. Gradients flow to both descriptors.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit.
    """
    check_floating("subgroup_similarity", foreground=foreground, background=background)
    check_shape("subgroup_similarity", "foreground", foreground, "[N,C]", None, None)
    check_shape(
        "subgroup_similarity",
        "background",
        background,
        f"{list(foreground.shape)}, as foreground",
        *foreground.shape,
    )
    check_integer_vector("subgroup_similarity", "groups", groups, foreground.shape[0])
    if selection.calls_reference():
        with full_precision(foreground.device):
            return reference.subgroup_similarity(foreground, background, groups)
    result: Tensor = _call(foreground, background, groups)
    return result


def _fake(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    return foreground.new_empty((), dtype=accumulation_dtype(foreground, background))


def _fake_backward(grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    return foreground.new_empty(foreground.shape), background.new_empty(background.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_inter: Tensor) -> tuple[Tensor | None, ...]:
    grad_foreground, grad_background = _call_backward(grad_inter, *ctx.saved_tensors)
    return grad_foreground, grad_background, None


_forward = register(
    "subgroup_similarity",
    "(Tensor foreground, Tensor background, Tensor groups) -> Tensor",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "subgroup_similarity_backward",
    "(Tensor grad_inter, Tensor foreground, Tensor background, Tensor groups) -> (Tensor, Tensor)",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("subgroup_similarity", _forward, _backward, _setup_context)
