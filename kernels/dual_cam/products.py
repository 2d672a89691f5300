"""The matrix products of dual_cam, which are left to torch on every backend: logits, and through them."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.dual_cam.inputs import Inputs


def logits_of(inputs: Inputs, pooled: Tensor) -> Tensor:
    """[2,B,K] of pooled maps [1,B,D] or [2,B,D]."""
    biases, lowered, weights = (
        each.to(inputs.of_logits) for each in (inputs.biases, pooled.expand(2, -1, -1), inputs.weights)
    )
    return torch.baddbmm(biases.unsqueeze(1), lowered, weights.transpose(1, 2))


def through_logits(
    grad_logits: Tensor | None, inputs: Inputs, pooled: Tensor, weights_needed: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the pooled maps, for each classifier [2,B,D], and of the weights, in the accumulation dtype."""
    if grad_logits is None:
        of_weights = torch.zeros_like(inputs.weights, dtype=pooled.dtype) if weights_needed else None
        return pooled.new_zeros(2, *pooled.shape[1:]), of_weights
    lowered, both, weights = (
        each.to(inputs.of_logits) for each in (grad_logits, pooled.expand(2, -1, -1), inputs.weights)
    )
    of_weights = torch.bmm(lowered.transpose(1, 2), both).to(pooled.dtype) if weights_needed else None
    return torch.bmm(lowered, weights).to(pooled.dtype), of_weights


def or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    """A gradient, or zeros where nothing depends on what it is the gradient of."""
    return torch.zeros_like(like) if gradient is None else gradient
