"""dual_cam: all that two linear classifiers make of their maps, and of the map they share, as one step of autograd.

It is `label_cam`, the logits, `regulate` and `masked_pool`, one after the other, with one gradient of each map:
    W'[k] = W[k] - (1 - a) mean_k W[k]                    a is how much the CAMs keep of the classes' mean weights
    cams, pooled = label_cam(map, W', y)                  of the shared map F, or of a map for each classifier
    logits[r,i] = W[r] pooled[i] + b[r]                   (pooling and a 1x1 convolution commute)
    t, m, M, terms = regulate(cams)                       thresholds given, the means, or moved by offsets
    r[i,x] = V[x] pooled[i] + v[x]                        those offsets, where they are learned
    f, g = masked_pool(F, m)

Gradient, written for a shared map: dm from f and g by one read of F; dP from dm by `regulate`; then, in one write and
one read of F, with u and v as in masked_pool and g_i = dL/dpooled of logits and offsets,
    dF[i,c,p] = sum_r W'[r, y_i, c] dP[i,r,p] + sum_r m[i,r,p] (u - v)[i,r,c] + sum_r v[i,r,c] + g[i,c] / N
    dW[r] = dlogits[r]^T pooled, plus s_k - (1 - a) / K sum_j s_j in row k, where
    s_k[c] = sum_{i: y_i = k} sum_p F[i,c,p] dP[i,r,p]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    accumulation_dtype,
    check_floating,
    check_shape,
    full_precision,
    gradient_like,
)
from iir_fast.kernels.dual_cam import native, reference
from iir_fast.kernels.dual_cam.reference import Inputs
from iir_fast.kernels.label_cam import check_arguments as check_label_cam
from iir_fast.kernels.masked_pool import RegionDescriptors
from iir_fast.kernels.registration import deferred, register, register_gradient
from iir_fast.kernels.regulate import RegulatedCAMs


class DualCAMs(NamedTuple):
    """What dual_cam returns; all float32, or float64 when an input is."""

    logits: Tensor
    """[2,B,K] of both classifiers; under autocast in its dtype."""
    cams: Tensor
    """[B,2,H,W]: label CAMs of both classifiers, not normalized."""
    regulated: RegulatedCAMs
    """The label CAMs normalized, cut at their thresholds and compared."""
    descriptors: RegionDescriptors
    """foreground and background [B,2,C]: the shared map under the masks and their complements."""


def dual_cam(
    features: Tensor,
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    *,
    maps: tuple[Tensor, Tensor] | None = None,
    offset_weights: Tensor | None = None,
    offset_biases: Tensor | None = None,
    thresholds: Tensor | None = None,
    class_mean: float = 1.0,
) -> DualCAMs:
    """Compute logits, label CAMs, regulated CAMs and region descriptors of two classifiers.

    A NaN or inf in a sample's map reaches that sample's results, and in the backward pass its gradients and the
    gradients of all weights.

    Args:
        features: [B,C,H,W], floating, any strides: the shared map.
        weights: [2,K,D], floating: the classifiers' weights; D is C without `maps`.
        biases: [2,K], floating.
        labels: int64 [B], each in [0,K).
        maps: [B,D,H,W] each, floating: what each classifier reads; None: both read `features`.
        offset_weights: [2,D], floating, with `offset_biases`: offsets of the thresholds from the CAMs' means are these
            times the pooled maps. None: no offsets.
        offset_biases: [2], floating.
        thresholds: [B,2] in (0,1), floating, in place of offsets; None: each normalized CAM's own mean, with offsets.
        class_mean: how much of the mean of all classes' weights is left in the CAMs' weights, in [0,1]; the logits are
            those of `weights` themselves.

    Returns:
        DualCAMs. Gradients flow to everything but the labels.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, arguments that belong together are not given together, or `class_mean` is
            outside [0,1].
        IndexError: a label is outside [0,K) (looked at on the CPU only).
    """
    _check(features, weights, biases, labels, maps, offset_weights, offset_biases, thresholds)
    if not 0 <= class_mean <= 1:
        raise ValueError(f"dual_cam: class_mean is {class_mean}; accepted is a number in [0,1].")
    map_a, map_b = maps or (None, None)
    of_logits = _dtype_of_logits(weights, *maps or (features,))
    offsets = offset_weights, offset_biases
    inputs = features, map_a, map_b, weights, biases, labels, *offsets, thresholds, of_logits, class_mean
    floating = features, map_a, map_b, weights, biases, offset_weights, offset_biases, thresholds
    if selection.calls_reference(native.supports, *floating):
        with full_precision(features.device):
            found = reference.dual_cam(*inputs)
    else:
        found = _call(*inputs)
    logits, cams, terms, masks, normalized, cuts, foreground, background = found[:8]
    regulated = RegulatedCAMs(terms, masks, normalized, cuts)
    return DualCAMs(logits, cams, regulated, RegionDescriptors(foreground, background))


def _check(
    features: Tensor,
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    maps: tuple[Tensor, Tensor] | None,
    offset_weights: Tensor | None,
    offset_biases: Tensor | None,
    thresholds: Tensor | None,
) -> None:
    for each in (features,) if maps is None else maps:
        check_label_cam(each, weights, labels)
    _, classes, channels = weights.shape
    if len(weights) != 2:
        raise ValueError(f"dual_cam: weights has shape {list(weights.shape)}; accepted is [2,K,{channels}].")
    check_floating("dual_cam", features=features, biases=biases)
    check_shape("dual_cam", "biases", biases, f"[2,{classes}]", 2, classes)
    if maps is not None:
        check_shape("dual_cam", "features", features, "[B,C,H,W]", None, None, None, None)
        batch, _, height, width = features.shape
        for name, each in zip(("the first of maps", "the second of maps"), maps, strict=True):
            check_shape("dual_cam", name, each, f"[{batch},D,{height},{width}]", batch, None, height, width)
    if (offset_weights is None) != (offset_biases is None):
        raise ValueError("dual_cam: one of offset_weights and offset_biases is missing; accepted are both or neither.")
    if offset_weights is not None and offset_biases is not None:
        check_floating("dual_cam", offset_weights=offset_weights, offset_biases=offset_biases)
        check_shape("dual_cam", "offset_weights", offset_weights, f"[2,{channels}]", 2, channels)
        check_shape("dual_cam", "offset_biases", offset_biases, "[2]", 2)
        if thresholds is not None:
            raise ValueError("dual_cam: thresholds and offset_weights are both given; accepted is one of the two.")
    if thresholds is not None:
        check_floating("dual_cam", thresholds=thresholds)
        check_shape("dual_cam", "thresholds", thresholds, f"[{len(features)},2]", len(features), 2)


def _dtype_of_logits(*tensors: Tensor) -> torch.dtype:
    """Return autocast's where it is on, as of any linear layer: the products are where the time goes."""
    dtype, device = accumulation_dtype(*tensors), tensors[0].device.type
    if dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return dtype
    lowered: torch.dtype = torch.get_autocast_dtype(device)
    return lowered


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    features, weights, maps = inputs.features, inputs.weights, inputs.maps
    batch, channels, height, width = features.shape
    of_cams, of_descriptors = accumulation_dtype(weights, *maps), accumulation_dtype(features, weights, *maps)

    def empty(*shape: int, dtype: torch.dtype = of_cams) -> Tensor:
        return features.new_empty(shape, dtype=dtype)

    return (
        empty(2, batch, weights.shape[1], dtype=inputs.of_logits),
        empty(batch, 2, height, width),
        empty(batch, 2),
        empty(batch, 2, height, width),
        empty(batch, 2, height, width),
        empty(batch, 2),
        empty(batch, 2, channels, dtype=of_descriptors),
        empty(batch, 2, channels, dtype=of_descriptors),
        empty(len(maps), batch, weights.shape[2]),
        empty(0) if inputs.offset_weights is None else empty(batch, 2),
        empty(2, batch, weights.shape[2], dtype=accumulation_dtype(weights)) if inputs.has_rows else empty(0),
        inputs.labels.new_empty(batch if inputs.has_rows else 0),
    )


def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments[8:19])
    features_needed, maps_needed, weights_needed = arguments[-3:]

    def like(tensor: Tensor | None, needed: bool = True) -> Tensor:
        return inputs.features.new_empty(0) if tensor is None or not needed else tensor.new_empty(tensor.shape)

    def like_map(tensor: Tensor | None, needed: bool) -> Tensor:
        return inputs.features.new_empty(0) if tensor is None or not needed else gradient_like(tensor)

    return (
        like_map(inputs.features, features_needed),
        like_map(inputs.map_a, maps_needed),
        like_map(inputs.map_b, maps_needed),
        like(inputs.weights, weights_needed),
        like(inputs.biases),
        like(inputs.offset_weights),
        like(inputs.offset_biases),
        like(inputs.thresholds),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, cams, _, masks, _, _, foreground, background, *others = output
    *tensors, ctx.of_logits, ctx.class_mean = inputs
    ctx.save_for_backward(*tensors, cams, masks, foreground, background, *others)
    ctx.mark_non_differentiable(*others)
    # A result that nothing depends on costs no read of the map in the backward pass.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    needed = ctx.needs_input_grad
    features_needed, maps_needed, weights_needed = needed[0], needed[1] or needed[2], needed[3]
    flags = features_needed, maps_needed, weights_needed
    found = _call_backward(*gradients[:8], *saved[:9], ctx.of_logits, ctx.class_mean, *saved[9:], *flags)
    features, map_a, map_b, weights, biases, *others = (
        each if wanted else None for each, wanted in zip(found, (*needed[:5], *needed[6:9]), strict=True)
    )
    return features, map_a, map_b, weights, biases, None, *others, None, None


_INPUTS = (
    "Tensor features, Tensor? map_a, Tensor? map_b, Tensor weights, Tensor biases, Tensor labels, "
    "Tensor? offset_weights, Tensor? offset_biases, Tensor? thresholds, ScalarType of_logits, float class_mean"
)
_forward = register(
    "dual_cam",
    f"({_INPUTS}) -> ({', '.join(['Tensor'] * 12)})",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "dual_cam_backward",
    "(Tensor? grad_logits, Tensor? grad_cams, Tensor? grad_terms, Tensor? grad_masks, Tensor? grad_maps, "
    "Tensor? grad_thresholds, Tensor? grad_foreground, Tensor? grad_background, "
    f"{_INPUTS}, Tensor cams, Tensor masks, Tensor foreground, Tensor background, Tensor pooled, Tensor offsets, "
    "Tensor rows, Tensor places, bool features_needed, bool maps_needed, bool weights_needed) "
    f"-> ({', '.join(['Tensor'] * 8)})",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("dual_cam", _forward, _backward, _setup_context)
