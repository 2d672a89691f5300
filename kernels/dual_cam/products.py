"""What dual_cam does alike on every backend: torch's matrix products for the logits, and the way through regulate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iir_fast.kernels.dual_cam.reference import Gradients, Inputs, Saved
from iir_fast.kernels.regulate import TEMPERATURE


def logits_of(inputs: Inputs, pooled: Tensor) -> Tensor:
    """Compute logits [2,B,K] of pooled maps [1,B,D] or [2,B,D]."""
    biases, lowered, weights = (
        each.to(inputs.of_logits) for each in (inputs.biases, pooled.expand(2, -1, -1), inputs.weights)
    )
    return torch.baddbmm(biases.unsqueeze(1), lowered, weights.transpose(1, 2))


def pooled_through_logits(grad_logits: Tensor | None, inputs: Inputs, pooled: Tensor) -> Tensor:
    """Differentiate the pooled maps, for each classifier [2,B,D], in the accumulation dtype."""
    if grad_logits is None:
        return pooled.new_zeros(2, *pooled.shape[1:])
    return torch.bmm(*(each.to(inputs.of_logits) for each in (grad_logits, inputs.weights))).to(pooled.dtype)


def weights_through_logits(
    grad_logits: Tensor | None, inputs: Inputs, pooled: Tensor, of_rows: Tensor | None
) -> Tensor:
    """Differentiate the weights, in the accumulation dtype.

    `of_rows` [2,D] is the sum of the gradients of all samples' rows, if CAMs have some: its share of the mean is taken
    off.
    """
    share = (1 - inputs.class_mean) / inputs.weights.shape[1]
    if grad_logits is None:
        found = torch.zeros_like(inputs.weights, dtype=pooled.dtype)
    else:
        lowered, both = (each.to(inputs.of_logits) for each in (grad_logits, pooled.expand(2, -1, -1)))
        if of_rows is not None and of_rows.dtype == both.dtype:
            return torch.baddbmm(of_rows.unsqueeze(1), lowered.transpose(1, 2), both, beta=-share)
        found = torch.bmm(lowered.transpose(1, 2), both)
    if of_rows is not None:
        found = torch.sub(found, of_rows.unsqueeze(1), alpha=share)
    return found.to(pooled.dtype)


def through_regulate(
    backward_of_both: Callable[..., tuple[Tensor, Tensor]],
    given: Gradients,
    grad_masks: Tensor | None,
    like: Tensor,
    inputs: Inputs,
    saved: Saved,
) -> tuple[Tensor, Tensor | None]:
    """Compute the gradient of the CAMs, and of thresholds or offsets, if there were any; `like`: masks whose gradient a
    room's `backward_of_both` takes."""
    incoming = given.terms, grad_masks, given.maps, given.thresholds
    if all(each is None for each in incoming):
        return or_zeros(given.cams, saved.cams), None
    grad_terms = saved.masks.new_zeros(len(saved.masks), 2) if given.terms is None else given.terms
    gradients = grad_terms, or_zeros(grad_masks, like), given.maps, given.thresholds
    offsets = None if inputs.offset_weights is None else saved.offsets
    inputs_of_regulate = *saved.cams.unbind(1), inputs.thresholds, offsets, TEMPERATURE
    grad_cams, grad_cuts = backward_of_both(*gradients, *inputs_of_regulate)
    return grad_cams if given.cams is None else grad_cams + given.cams, grad_cuts


def or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    """Return a gradient, or zeros where nothing depends on what it is the gradient of."""
    return torch.zeros_like(like) if gradient is None else gradient
