"""label_cam in closed form on ATen: batched products of [C,P] matrices with a few vectors per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import Factors, accumulation_dtype, gradient_like
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
    beside: Factors | None = None,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`grad_pooled`: [B,C], or [S,B,C], whose sum it is. `beside`: what else the gradient of the features is to hold.
    `sums` [R,K,C]: what that of the weights is added to, in place, in the accumulation dtype."""
    dtype = accumulation_dtype(features, weights)
    grad_cams = grad_cams.flatten(2).to(dtype)
    grad_features, grad_weights = features.new_empty(0), weights.new_empty(0)
    if features_needed:
        vectors = weights[:, labels].permute(1, 2, 0).to(dtype)
        everywhere = (in_all(grad_pooled).to(dtype) / grad_cams.shape[2]).unsqueeze(2)
        product = torch.baddbmm(everywhere, vectors, grad_cams)
        if beside is not None:
            product.baddbmm_(beside.per_channel.transpose(1, 2), beside.per_pixel).add_(beside.added.unsqueeze(2))
        grad_features = gradient_like(features).copy_(product.unflatten(2, features.shape[2:]))
    if weights_needed:
        per_sample = torch.bmm(grad_cams, features.flatten(2).transpose(1, 2).to(dtype))
        grad_weights = segment_sum(per_sample, labels, weights.shape[1]).transpose(0, 1)
        grad_weights = grad_weights.contiguous() if sums is None else sums.add_(grad_weights)
        grad_weights = grad_weights.to(weights.dtype)
    return grad_features, grad_weights


def in_all(grad_pooled: Tensor) -> Tensor:
    """[B,C]"""
    return grad_pooled if grad_pooled.dim() == 2 else grad_pooled.sum(0)
