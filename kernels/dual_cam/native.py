"""dual_cam on the compiled CPU kernels of the operators that it is made of, and on ATen for small things.

What ATen does for Triton's kernels, too, stands at the end: matrix products for logits, and the way through `regulate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import Factors, accumulation_dtype
from iir_fast.kernels.dual_cam.reference import Gradients, Inputs, Saved
from iir_fast.kernels.label_cam import native as label_cam
from iir_fast.kernels.label_cam.reference import BackwardInputs as OfLabelCAM
from iir_fast.kernels.masked_pool import native as masked_pool
from iir_fast.kernels.masked_pool.reference import BackwardInputs as OfMaskedPool
from iir_fast.kernels.regulate import TEMPERATURE
from iir_fast.kernels.regulate import native as regulate


def supports(features: Tensor, map_a: Tensor | None, map_b: Tensor | None, *others: Tensor | None) -> bool:
    """Tell whether the kernels take these."""
    maps = (features, map_a, map_b)
    return all(each is None or native.supports(each, *others) for each in maps)


def forward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    rows, places = inputs.weights.new_empty(0), inputs.labels.new_empty(0)
    if inputs.has_rows:
        weights = inputs.weights.to(accumulation_dtype(inputs.weights))
        # The mean as a product: torch's own mean over rows takes several times as long.
        share = weights.new_full((2, 1, weights.shape[1]), 1 / weights.shape[1])
        rows = torch.sub(weights[:, inputs.labels], torch.bmm(share, weights), alpha=1 - inputs.class_mean)
        places = torch.arange(len(inputs.labels))
    of_cams = inputs.of_cams(rows, places)
    found = [
        label_cam.forward(each, weights, of_cams.labels)
        for each, weights in zip(inputs.maps, of_cams.weights_by_map, strict=True)
    ]
    cams = found[0][0] if len(found) == 1 else torch.cat([each for each, _ in found], dim=1)
    pooled = found[0][1].unsqueeze(0) if len(found) == 1 else torch.stack([each for _, each in found])
    offsets = None
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        weights = inputs.offset_weights.to(pooled.dtype)
        offsets = (pooled * weights.unsqueeze(1)).sum(2).T if len(found) == 2 else pooled[0] @ weights.T
        offsets = offsets.contiguous() + inputs.offset_biases.to(pooled.dtype)
    cam_a, cam_b = cams.unbind(1)
    regulated = regulate.forward(cam_a, cam_b, inputs.thresholds, offsets, TEMPERATURE)
    terms, masks, maps, thresholds = regulated
    descriptors = masked_pool.forward(inputs.features, masks)
    offsets = pooled.new_empty(0) if offsets is None else offsets
    logits = logits_of(inputs, pooled)
    return logits, cams, terms, masks, maps, thresholds, *descriptors, pooled, offsets, rows, places


def backward(*arguments: Any) -> tuple[Tensor, ...]:
    given, inputs, saved = Gradients(*arguments[:8]), Inputs(*arguments[8:19]), Saved(*arguments[19:27])
    features_needed, maps_needed, weights_needed = arguments[27:]
    shared = len(inputs.maps) == 1
    of_cams = inputs.of_cams(saved.rows, saved.places)
    features, weights, labels, pooled = inputs.features, of_cams.weights, of_cams.labels, saved.pooled
    grad_features, factors, grad_masks = _through_pool(given, inputs, saved, features_needed)
    grad_cams, grad_cuts = through_regulate(regulate.backward_of_both, given, grad_masks, saved.masks, inputs, saved)
    grad_pooled = pooled_through_logits(given.logits, inputs, pooled)
    if given.logits is None:
        grad_biases = torch.zeros_like(inputs.biases)
    else:
        grad_biases = given.logits.sum(1, dtype=pooled.dtype).to(inputs.biases.dtype)
    grad_offset_weights, grad_offset_biases = pooled.new_empty(0), pooled.new_empty(0)
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        to_offsets = saved.offsets.new_zeros(saved.offsets.shape) if grad_cuts is None else grad_cuts
        grad_pooled = grad_pooled + to_offsets.T.unsqueeze(2) * inputs.offset_weights.to(pooled.dtype).unsqueeze(1)
        of_weights = torch.bmm(to_offsets.T.unsqueeze(1), pooled.expand(2, -1, -1)).squeeze(1)
        grad_offset_weights = of_weights.to(inputs.offset_weights.dtype)
        grad_offset_biases = to_offsets.sum(0).to(inputs.offset_biases.dtype)
    # What is left: one gradient of each map, and the rows of the labels, which are added to the weights' gradient.
    sums = None
    if weights_needed and inputs.has_rows:
        sums = torch.zeros(weights.shape)
    elif weights_needed:
        sums = weights_through_logits(given.logits, inputs, pooled, None)
    grad_maps = [features.new_empty(0), features.new_empty(0)]
    if shared:
        gradients = OfLabelCAM(grad_cams, grad_pooled, features, weights, labels, features_needed, weights_needed)
        grad_features, _ = label_cam.backward_beside(gradients, factors, sums)
    else:
        for r, each in enumerate(inputs.maps):
            own = weights[r : r + 1]
            gradients = OfLabelCAM(
                grad_cams[:, r : r + 1], grad_pooled[r], each, own, labels, maps_needed, weights_needed
            )
            grad_maps[r], _ = label_cam.backward_beside(gradients, sums=None if sums is None else sums[r : r + 1])
    if sums is not None and inputs.has_rows:
        rows, sums = sums, weights_through_logits(given.logits, inputs, pooled, sums.sum(1))
        for of_classifier, each in zip(sums, rows, strict=True):
            of_classifier.index_add_(0, inputs.labels, each)
    grad_thresholds = features.new_empty(0)
    if inputs.thresholds is not None:
        grad_thresholds = torch.zeros_like(inputs.thresholds) if grad_cuts is None else grad_cuts
    return (
        grad_features,
        *grad_maps,
        weights.new_empty(0) if sums is None else sums.to(inputs.weights.dtype),
        grad_biases,
        grad_offset_weights,
        grad_offset_biases,
        grad_thresholds,
    )


def _through_pool(
    given: Gradients, inputs: Inputs, saved: Saved, features_needed: bool
) -> tuple[Tensor, Factors | None, Tensor | None]:
    """Return the gradient of a map that is pooled only, or what is to be written of that of one that is read, too; and
    that of the masks."""
    features, shared = inputs.features, len(inputs.maps) == 1
    if given.foreground is None and given.background is None:
        grad_features = features.new_empty(0) if shared or not features_needed else torch.zeros_like(features)
        return grad_features, None, given.masks
    gradients = or_zeros(given.foreground, saved.foreground), or_zeros(given.background, saved.background)
    pooling = OfMaskedPool(*gradients, features, saved.masks, saved.foreground, saved.background, features_needed)
    factors = None
    if shared:
        grad_features = features.new_empty(0)
        factors, grad_masks = masked_pool.backward_in_factors(pooling)
    else:
        grad_features, grad_masks = masked_pool.backward(*pooling)
    return grad_features, factors, grad_masks if given.masks is None else grad_masks + given.masks


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
