"""label_cam: the CAM of each sample's own class, without the class maps, and the pooled features.

P[i,r,p] = sum_c W[r, y_i, c] F[i,c,p] and pooled[i,c] = mean_p F[i,c,p]. Pooling and a 1x1 convolution commute, so
the logits are W pooled and the class maps [B,K,H,W] of the usual CAM head are never built.

Gradient, with G = dL/dP, g = dL/dpooled and N = H*W:
    dF[i,c,p] = sum_r W[r, y_i, c] G[i,r,p] + g[i,c] / N
    dW[r,k,c] = sum_{i: y_i = k} sum_p F[i,c,p] G[i,r,p]
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    accumulation_dtype,
    check_features,
    check_floating,
    check_integer_vector,
    check_range,
    check_shape,
    full_precision,
    gradient_like,
)
from iir_fast.kernels.label_cam import native, reference
from iir_fast.kernels.registration import deferred, register, register_gradient


class LabelCAMs(NamedTuple):
    """What label_cam returns; both float32, or float64 when an input is."""

    cams: Tensor
    """[B,R,H,W]: the CAM of sample i's class under classifier r, not normalized."""
    pooled: Tensor
    """[B,C]: mean of the features over the pixels."""


def label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> LabelCAMs:
    """Compute CAMs of the labelled classes under R classifiers that read the same features, and the pooled features.

    A NaN or inf in a sample's features reaches that sample's results, and in the backward pass the weight gradient
    of its class, nothing else.

    Args:
        features: [B,C,H,W], floating, any strides.
        weights: [R,K,C], floating: the weights of R linear classifiers over K classes.
        labels: int64 [B], each in [0,K).

    Returns:
        LabelCAMs(cams [B,R,H,W], pooled [B,C]). Gradients flow to `features` and `weights`.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, or C, H, W, R or K is 0.
        IndexError: a label is outside [0,K) (looked at on the CPU only).
    """
    check_arguments(features, weights, labels)
    if selection.calls_reference(native.supports, features, weights):
        with full_precision(features.device):
            return LabelCAMs(*reference.label_cam(features, weights, labels))
    return LabelCAMs(*_call(features, weights, labels))


def check_arguments(features: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Raise what `label_cam` raises."""
    check_features("label_cam", features)
    check_floating("label_cam", weights=weights)
    check_shape("label_cam", "weights", weights, f"[R,K,{features.shape[1]}]", None, None, features.shape[1])
    if 0 in weights.shape[:2]:
        raise ValueError(f"label_cam: weights has shape {list(weights.shape)}; R and K must be at least 1.")
    check_integer_vector("label_cam", "labels", labels, features.shape[0])
    check_range("label_cam", "labels", labels, weights.shape[1] - 1)


def _fake(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    batch, channels, height, width = features.shape
    return (
        features.new_empty((batch, weights.shape[0], height, width), dtype=dtype),
        features.new_empty((batch, channels), dtype=dtype),
    )


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    given = reference.BackwardInputs(*arguments)
    features, weights = given.features, given.weights
    return (
        gradient_like(features) if given.features_needed else features.new_empty(0),
        weights.new_empty(weights.shape) if given.weights_needed else weights.new_empty(0),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_cams: Tensor, grad_pooled: Tensor) -> tuple[Tensor | None, ...]:
    features_needed, weights_needed, _ = ctx.needs_input_grad
    grad_features, grad_weights = _call_backward(
        grad_cams, grad_pooled, *ctx.saved_tensors, features_needed, weights_needed
    )
    return grad_features if features_needed else None, grad_weights if weights_needed else None, None


_forward = register(
    "label_cam",
    "(Tensor features, Tensor weights, Tensor labels) -> (Tensor, Tensor)",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "label_cam_backward",
    "(Tensor grad_cams, Tensor grad_pooled, Tensor features, Tensor weights, Tensor labels, "
    "bool features_needed, bool weights_needed) -> (Tensor, Tensor)",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("label_cam", _forward, _backward, _setup_context)
