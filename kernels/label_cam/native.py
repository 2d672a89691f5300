"""label_cam on the compiled CPU kernels: a read of the features forward, a read and a write of them backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import Factors
from iir_fast.kernels.label_cam.reference import BackwardInputs

MAX_CLASSIFIERS = 2


def supports(features: Tensor, weights: Tensor) -> bool:
    """Tell whether the kernels take these."""
    return native.supports(features, weights) and weights.shape[0] <= MAX_CLASSIFIERS


def forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    pixels = features.shape[2] * features.shape[3]
    everywhere = torch.full((1, 1, pixels), 1 / pixels)
    cams, pooled, _ = native.sums(features, weights[:, labels].transpose(0, 1), everywhere)
    return cams.unflatten(2, features.shape[2:]), pooled.squeeze(1)


def backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    return backward_beside(BackwardInputs(*arguments))


def backward_beside(
    given: BackwardInputs, beside: Factors | None = None, sums: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute both gradients, with what `dual_cam` adds to them.

    Args:
        given: `grad_pooled` is [B,C], or [S,B,C], whose sum it is.
        beside: what else the gradient of the features is to hold.
        sums: [R,K,C], float32: what the gradient of the weights is added to, in place.
    """
    features, weights, labels = given.features, given.weights, given.labels
    grad_cams, grad_pooled = given.grad_cams.flatten(2), given.grad_pooled
    grad_features, grad_weights = features.new_empty(0), weights.new_empty(0)
    if given.features_needed:
        everywhere = (grad_pooled if grad_pooled.dim() == 2 else grad_pooled.sum(0)) / grad_cams.shape[2]
        factors = Factors(weights[:, labels].transpose(0, 1), grad_cams, everywhere)
        if beside is not None:
            factors = Factors(
                torch.cat((factors.per_channel.float(), beside.per_channel), dim=1),
                torch.cat((grad_cams.float(), beside.per_pixel.float()), dim=1),
                everywhere + beside.added,
            )
        grad_features = native.products(features, *factors)
    if given.weights_needed:
        if sums is None:
            sums = native.uninitialized(torch.empty(weights.shape)).zero_()
        _, per_sample, _ = native.sums(features, None, grad_cams)
        for of_classifier, rows in zip(sums, per_sample.unbind(1), strict=True):
            of_classifier.index_add_(0, labels, rows)
        grad_weights = sums.to(weights.dtype)
    return grad_features, grad_weights
