"""label_cam on the compiled host kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import Factors
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
    beside: Factors | None = None,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`grad_pooled`, `beside` and `sums`: as in `host`."""
    if not _serves(features, weights):
        needed = features_needed, weights_needed
        return host.backward(grad_cams, grad_pooled, features, weights, labels, *needed, beside, sums)
    grad_cams = grad_cams.flatten(2)
    grad_features, grad_weights = features.new_empty(0), weights.new_empty(0)
    if features_needed:
        everywhere = host.in_all(grad_pooled) / grad_cams.shape[2]
        factors = Factors(weights[:, labels].transpose(0, 1), grad_cams, everywhere)
        if beside is not None:
            factors = Factors(
                torch.cat((factors.per_channel.float(), beside.per_channel), dim=1),
                torch.cat((grad_cams.float(), beside.per_pixel.float()), dim=1),
                everywhere + beside.added,
            )
        grad_features = native.products(features, *factors)
    if weights_needed:
        if sums is None:
            sums = native.uninitialized(torch.empty(weights.shape)).zero_()
        _, per_sample, _ = native.sums(features, None, grad_cams)
        for of_classifier, rows in zip(sums, per_sample.unbind(1), strict=True):
            of_classifier.index_add_(0, labels, rows)
        grad_weights = sums.to(weights.dtype)
    return grad_features, grad_weights
