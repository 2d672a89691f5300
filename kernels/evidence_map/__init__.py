"""evidence_map: how strongly each pixel's feature points along a given vector. Inference only.

E[i,r,p] = F[i,:,p] . v[i,r] / ||F[i,:,p]||. With v = P / |P| - g / |g| for a class prototype P and the image's own
background descriptor g this is cos(F, P) - cos(F, g): one contraction of F, the pixel norms in the same pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import (
    accumulation_dtype,
    check_features,
    check_floating,
    check_shape,
    full_precision,
)
from iir_fast.kernels.evidence_map import native, reference
from iir_fast.kernels.registration import deferred, register, register_no_gradient


def evidence_map(features: Tensor, vectors: Tensor) -> Tensor:
    """Project every pixel's unit feature on R vectors per sample.

    A pixel whose feature has norm <= 1e-12 gives 0. A NaN or inf reaches its own pixel (from `vectors`: its own map).

    Args:
        features: [B,C,H,W], floating, any strides.
        vectors: [B,R,C], floating, of any length: the result is linear in them. R >= 1.

    Returns:
        [B,R,H,W], float32, or float64 when an input is.

    Raises:
        RuntimeError: a gradient is asked for (gradients are on and an input requires one).
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, or C, H, W or R is 0.
    """
    check_features("evidence_map", features)
    check_floating("evidence_map", vectors=vectors)
    batch, channels = features.shape[:2]
    check_shape("evidence_map", "vectors", vectors, f"[{batch},R,{channels}]", batch, None, channels)
    if vectors.shape[1] == 0:
        raise ValueError(f"evidence_map: vectors has shape {list(vectors.shape)}; R must be at least 1.")
    if torch.is_grad_enabled() and (features.requires_grad or vectors.requires_grad):
        raise RuntimeError(
            "evidence_map: features or vectors requires a gradient, and this operator is for inference only; "
            "call it under torch.no_grad()."
        )
    if selection.calls_reference(native.supports, features, vectors):
        with full_precision(features.device):
            return reference.evidence_map(features, vectors)
    result: Tensor = _call(features, vectors)
    return result


def _fake(features: Tensor, vectors: Tensor) -> Tensor:
    batch, _, height, width = features.shape
    return features.new_empty((batch, vectors.shape[1], height, width), dtype=accumulation_dtype(features, vectors))


_call = register(
    "evidence_map",
    "(Tensor features, Tensor vectors) -> Tensor",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
register_no_gradient("evidence_map", "is for inference only")
