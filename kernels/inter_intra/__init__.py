"""inter_intra: the loss of a batch, from what its CAMs' regulation and its pooled regions have left.

With terms t of B images, of which k is 0 for the `dual` and 1 for the `agreement` regulation:
    intra = mean_i t[i,k]
With raw descriptors f, g of N = B R regions and complements, and the label of its image as each region's group,
    v_j = g_j / |g_j|,   w = mean_j v_j
    inter = subgroup_similarity(f, v + w)
    loss = intra_weight intra + inter_weight inter
A region is told apart from its own complement and from the mean complement of the batch (this project's
reconstruction): against its own alone, foregrounds and backgrounds of a class could change places.

Gradient, with h_j = d inter / d(v_j + w) from subgroup_similarity:
    dt[i,k] = intra_weight / B,   dv_j = h_j + mean_k h_k,   dg_j = (dv_j - v_j (v_j.dv_j)) / |g_j|
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    check_floating,
    check_integer_vector,
    check_shape,
    full_precision,
)
from iir_fast.kernels.inter_intra import native, reference
from iir_fast.kernels.inter_intra.reference import Inputs
from iir_fast.kernels.registration import deferred, register, register_gradient
from iir_fast.kernels.subgroup_similarity.reference import new_places

Regulation = Literal["dual", "agreement"]
REGULATIONS: tuple[Regulation, ...] = ("dual", "agreement")


class InterIntra(NamedTuple):
    """What inter_intra returns: scalars, float32, or float64 when an input is."""

    loss: Tensor
    """intra_weight * intra + inter_weight * inter."""
    intra: Tensor
    """The regulation of the two CAMs, mean over images."""
    inter: Tensor
    """The inter-sample criterion, mean over all pairs of a class's regions."""


def inter_intra(
    terms: Tensor,
    foreground: Tensor,
    background: Tensor,
    labels: Tensor,
    intra_weight: float,
    inter_weight: float,
    regulation: Regulation = "dual",
) -> InterIntra:
    """Compute the weighted sum of the regulation of CAMs and the similarity of regions within a class.

    A NaN or inf in any argument makes the loss NaN, unless it is in the foreground of a region without a partner.

    Args:
        terms: [T,2], floating: the `dual` and the `agreement` regulation of T images.
        foreground: [B,R,C], floating: descriptors of B images' regions.
        background: [B,R,C], floating: descriptors of the complements.
        labels: int64 [B], any values: images with equal values are one subgroup.
        intra_weight: weight of the regulation.
        inter_weight: weight of the similarity.
        regulation: "dual" or "agreement": which of the terms.

    Returns:
        InterIntra. Without any same-class pair, or without images, the result is connected to the graph all the same.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, or the regulation is none of the two.
    """
    check_floating("inter_intra", terms=terms, foreground=foreground, background=background)
    check_shape("inter_intra", "terms", terms, "[T,2]", None, 2)
    check_shape("inter_intra", "foreground", foreground, "[B,R,C]", None, None, None)
    shape = f"{list(foreground.shape)}, as foreground"
    check_shape("inter_intra", "background", background, shape, *foreground.shape)
    check_integer_vector("inter_intra", "labels", labels, foreground.shape[0])
    if regulation not in REGULATIONS:
        raise ValueError(f"inter_intra: regulation is {regulation!r}; accepted are {', '.join(REGULATIONS)}.")
    column = REGULATIONS.index(regulation)
    inputs = terms, foreground, background, labels, column, intra_weight, inter_weight
    if selection.calls_reference():
        with full_precision(foreground.device):
            return InterIntra(*reference.inter_intra(*inputs))
    return InterIntra(*_call(*inputs)[:3])


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    batch, regions, channels = inputs.foreground.shape
    shapes: list[tuple[int, ...]] = [(), (), (), (channels,), (batch * regions,)]
    found = [inputs.foreground.new_empty(shape, dtype=inputs.dtype) for shape in shapes]
    return *found, new_places(inputs.labels, regions)


def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(each.new_empty(each.shape) for each in Inputs(*arguments[3:10])[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.column, ctx.intra_weight, ctx.inter_weight = inputs
    *_, mean, inverse, places = output
    ctx.save_for_backward(*tensors, mean, inverse, places)
    ctx.mark_non_differentiable(mean, inverse, places)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    inputs = *saved[:4], ctx.column, ctx.intra_weight, ctx.inter_weight
    found = _call_backward(*gradients[:3], *inputs, *saved[4:])
    return *found, None, None, None, None


_INPUTS = (
    "Tensor terms, Tensor foreground, Tensor background, Tensor labels, int column, float intra_weight, "
    "float inter_weight"
)
_forward = register(
    "inter_intra",
    f"({_INPUTS}) -> ({', '.join(['Tensor'] * 6)})",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "inter_intra_backward",
    f"(Tensor? grad_loss, Tensor? grad_intra, Tensor? grad_inter, {_INPUTS}, Tensor mean, Tensor inverse, "
    "Tensor places) -> (Tensor, Tensor, Tensor)",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("inter_intra", _forward, _backward, _setup_context)
