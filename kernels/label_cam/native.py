"""label_cam on the compiled host kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.label_cam import host

MOST_CLASSIFIERS = 2


def _serves(features: Tensor, weights: Tensor) -> bool:
    return native.serves(features, weights) and weights.shape[0] <= MOST_CLASSIFIERS


def forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if not _serves(features, weights):
        return host.forward(features, weights, labels)
    pixels = features.shape[2] * features.shape[3]
    everywhere = torch.full((1, 1, pixels), 1 / pixels)
    cams, pooled, _ = native.sums(features, weights[:, labels].transpose(0, 1), everywhere)
    return cams.unflatten(2, features.shape[2:]), pooled.squeeze(1)


def backward(
    grad_cams: Tensor,
    grad_pooled: Tensor,
    features: Tensor,
    weights: Tensor,
    labels: Tensor,
    features_needed: bool,
    weights_needed: bool,
) -> tuple[Tensor, Tensor]:
    if not _serves(features, weights):
        return host.backward(grad_cams, grad_pooled, features, weights, labels, features_needed, weights_needed)
    grad_cams = grad_cams.flatten(2)
    grad_features, grad_weights = features.new_empty(0), weights.new_empty(0)
    if features_needed:
        grad_features = native.products(features, *factors(grad_cams, grad_pooled, weights, labels))
    if weights_needed:
        sums = native.uninitialized(torch.empty(weights.shape)).zero_()
        grad_weights = add_weight_gradient(sums, grad_cams, features, labels).to(weights.dtype)
    return grad_features, grad_weights


def add_weight_gradient(sums: Tensor, grad_cams: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Add, in place, the gradient of the weights, of grad_cams [B,R,P], to float32 sums [R,K,C]."""
    _, per_sample, _ = native.sums(features, None, grad_cams)
    for of_classifier, rows in zip(sums, per_sample.unbind(1), strict=True):
        of_classifier.index_add_(0, labels, rows)
    return sums


def factors(grad_cams: Tensor, grad_pooled: Tensor, weights: Tensor, labels: Tensor) -> native.Factors:
    """The gradient of the features, of grad_cams [B,R,P] and grad_pooled [B,C]."""
    return native.Factors(weights[:, labels].transpose(0, 1), grad_cams, grad_pooled / grad_cams.shape[2])
