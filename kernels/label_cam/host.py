"""label_cam in closed form on ATen: batched products of [C,P] matrices with a few vectors per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype, gradient_like
from iir_fast.kernels.segments import segment_sum


def forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    maps = features.flatten(2).to(dtype)
    vectors = weights[:, labels].transpose(0, 1).to(dtype)
    cams = torch.bmm(vectors, maps)
    return cams.unflatten(2, features.shape[2:]), maps.mean(2)


def backward(
    grad_cams: Tensor,
    grad_pooled: Tensor,
    features: Tensor,
    weights: Tensor,
    labels: Tensor,
    features_needed: bool,
    weights_needed: bool,
) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    grad_cams = grad_cams.flatten(2).to(dtype)
    grad_features, grad_weights = features.new_empty(0), weights.new_empty(0)
    if features_needed:
        vectors = weights[:, labels].permute(1, 2, 0).to(dtype)
        everywhere = (grad_pooled.to(dtype) / grad_cams.shape[2]).unsqueeze(2)
        product = torch.baddbmm(everywhere, vectors, grad_cams).unflatten(2, features.shape[2:])
        grad_features = gradient_like(features).copy_(product)
    if weights_needed:
        per_sample = torch.bmm(grad_cams, features.flatten(2).transpose(1, 2).to(dtype))
        grad_weights = segment_sum(per_sample, labels, weights.shape[1]).transpose(0, 1)
        grad_weights = grad_weights.to(weights.dtype).contiguous()
    return grad_features, grad_weights
