"""dual_cam forward and backward, whatever the rooms of the operators that it is made of run on.

Torch does the small part: logits, offsets and their gradients are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import Factors
from iir_fast.kernels.dual_cam.inputs import Inputs
from iir_fast.kernels.regulate import TEMPERATURE

Tensors = tuple[Tensor, ...]


class Rooms(NamedTuple):
    """The operators that dual_cam is made of, on one backend."""

    label_cam: Callable[..., Tensors]
    label_cam_backward: Callable[..., Tensors]
    regulate: Callable[..., Tensors]
    regulate_backward: Callable[..., tuple[Tensor, Tensor]]
    """Both CAMs' gradients in one tensor."""
    masked_pool: Callable[..., Tensors]
    masked_pool_backward: Callable[..., Tensors]
    masked_pool_factors: Callable[..., tuple[Factors, Tensor]]

    @classmethod
    def on(cls, label_cam: Any, regulate: Any, masked_pool: Any) -> Rooms:
        """Of the modules of one backend."""
        return cls(
            label_cam.forward,
            label_cam.backward,
            regulate.forward,
            regulate.backward_of_both,
            masked_pool.forward,
            masked_pool.backward,
            masked_pool.backward_in_factors,
        )


class Gradients(NamedTuple):
    """Of the results; None for one that nothing depends on."""

    logits: Tensor | None
    cams: Tensor | None
    terms: Tensor | None
    masks: Tensor | None
    maps: Tensor | None
    thresholds: Tensor | None
    foreground: Tensor | None
    background: Tensor | None


class Saved(NamedTuple):
    """Results that the backward pass needs."""

    cams: Tensor
    masks: Tensor
    foreground: Tensor
    background: Tensor
    pooled: Tensor
    """[1,B,C] of the shared map, or [2,B,D] of the classifiers' own."""
    offsets: Tensor
    """[B,2]; empty if there are none."""


def forward(rooms: Rooms, *arguments: Any) -> Tensors:
    inputs = Inputs(*arguments)
    found = [
        rooms.label_cam(each, weights, inputs.labels)
        for each, weights in zip(inputs.maps, inputs.weights_by_map, strict=True)
    ]
    cams = found[0][0] if len(found) == 1 else torch.cat([each for each, _ in found], dim=1)
    pooled = found[0][1].unsqueeze(0) if len(found) == 1 else torch.stack([each for _, each in found])
    dtype = pooled.dtype
    both = pooled.expand(2, -1, -1)
    biases, lowered, of_classes = (each.to(inputs.of_logits) for each in (inputs.biases, both, inputs.weights))
    logits = torch.baddbmm(biases.unsqueeze(1), lowered, of_classes.transpose(1, 2))
    offsets = None
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        of_offsets = inputs.offset_weights.to(dtype), inputs.offset_biases.to(dtype)
        if len(found) == 1:
            offsets = torch.addmm(of_offsets[1], pooled[0], of_offsets[0].T)
        else:
            offsets = torch.baddbmm(of_offsets[1].view(2, 1, 1), both, of_offsets[0].unsqueeze(2)).squeeze(2).T
            offsets = offsets.contiguous()
    terms, masks, maps, thresholds = rooms.regulate(*cams.unbind(1), inputs.thresholds, offsets, TEMPERATURE, False)
    foreground, background = rooms.masked_pool(inputs.features, masks)
    offsets = pooled.new_empty(0) if offsets is None else offsets
    return logits, cams, terms, masks, maps, thresholds, foreground, background, pooled, offsets


def backward(rooms: Rooms, *arguments: Any) -> Tensors:
    given, inputs, saved = Gradients(*arguments[:8]), Inputs(*arguments[8:18]), Saved(*arguments[18:24])
    features_needed, maps_needed, weights_needed = arguments[24:]
    shared = len(inputs.maps) == 1
    features, weights, labels = inputs.features, inputs.weights, inputs.labels
    grad_features, factors, grad_masks = _through_pool(rooms, given, inputs, saved, features_needed)
    grad_cams, grad_cuts = _through_regulate(rooms, given, grad_masks, inputs, saved)
    grad_pooled, sums, grad_biases = _through_logits(given.logits, grad_cuts, inputs, saved.pooled, weights_needed)
    grad_offset_weights, grad_offset_biases = _through_offsets(grad_cuts, inputs, saved.pooled)
    # What is left: one gradient of each map, and the rows of the labels, which are added to the weights' gradient.
    grad_maps = [features.new_empty(0), features.new_empty(0)]
    if shared:
        gradients = grad_cams, grad_pooled
        needed = features_needed, weights_needed
        grad_features, _ = rooms.label_cam_backward(*gradients, features, weights, labels, *needed, factors, sums)
    else:
        for r, each in enumerate(inputs.maps):
            gradients = grad_cams[:, r : r + 1], grad_pooled[r]
            needed, into = (maps_needed, weights_needed), None if sums is None else sums[r : r + 1]
            own = weights[r : r + 1]
            grad_maps[r], _ = rooms.label_cam_backward(*gradients, each, own, labels, *needed, None, into)
    grad_thresholds = features.new_empty(0)
    if inputs.thresholds is not None:
        grad_thresholds = torch.zeros_like(inputs.thresholds) if grad_cuts is None else grad_cuts
    return (
        grad_features,
        *grad_maps,
        weights.new_empty(0) if sums is None else sums.to(weights.dtype),
        grad_biases,
        grad_offset_weights,
        grad_offset_biases,
        grad_thresholds,
    )


def _through_pool(
    rooms: Rooms, given: Gradients, inputs: Inputs, saved: Saved, features_needed: bool
) -> tuple[Tensor, Factors | None, Tensor | None]:
    """The gradient of a map that is pooled only, or what is to be written of that of one that is read, too; and that of
    the masks."""
    features, shared = inputs.features, len(inputs.maps) == 1
    if given.foreground is None and given.background is None:
        grad_features = features.new_empty(0) if shared or not features_needed else torch.zeros_like(features)
        return grad_features, None, given.masks
    gradients = _or_zeros(given.foreground, saved.foreground), _or_zeros(given.background, saved.background)
    arguments = *gradients, features, saved.masks, saved.foreground, saved.background
    factors = None
    if shared:
        grad_features = features.new_empty(0)
        factors, grad_masks = rooms.masked_pool_factors(*arguments)
    else:
        grad_features, grad_masks = rooms.masked_pool_backward(*arguments, features_needed, True)
    return grad_features, factors, grad_masks if given.masks is None else grad_masks + given.masks


def _through_regulate(
    rooms: Rooms, given: Gradients, grad_masks: Tensor | None, inputs: Inputs, saved: Saved
) -> tuple[Tensor, Tensor | None]:
    """The gradient of the CAMs, and of thresholds or offsets, if there were any."""
    incoming = given.terms, grad_masks, given.maps, given.thresholds
    if all(each is None for each in incoming):
        return _or_zeros(given.cams, saved.cams), None
    grad_terms = saved.masks.new_zeros(len(saved.masks), 2) if given.terms is None else given.terms
    gradients = grad_terms, _or_zeros(grad_masks, saved.masks), given.maps, given.thresholds
    offsets = None if inputs.offset_weights is None else saved.offsets
    inputs_of_regulate = *saved.cams.unbind(1), inputs.thresholds, offsets, TEMPERATURE, False
    grad_cams, grad_cuts = rooms.regulate_backward(*gradients, *inputs_of_regulate)
    return grad_cams if given.cams is None else grad_cams + given.cams, grad_cuts


def _through_logits(
    grad_logits: Tensor | None, grad_offsets: Tensor | None, inputs: Inputs, pooled: Tensor, weights_needed: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of the pooled maps, for each classifier [2,B,D]; of the weights in the accumulation dtype; of the
    biases."""
    both, weights, biases, dtype = pooled.expand(2, -1, -1), inputs.weights, inputs.biases, pooled.dtype
    through_offsets = None
    if inputs.offset_weights is not None and grad_offsets is not None:
        through_offsets = grad_offsets.T.unsqueeze(2) * inputs.offset_weights.to(pooled.dtype).unsqueeze(1)
    if grad_logits is None:
        sums = torch.zeros_like(weights, dtype=dtype) if weights_needed else None
        nothing = pooled.new_zeros(both.shape)
        return nothing if through_offsets is None else through_offsets, sums, torch.zeros_like(biases)
    grad_logits, lowered, of_classes = (each.to(inputs.of_logits) for each in (grad_logits, both, weights))
    if through_offsets is None or inputs.of_logits != dtype:
        grad_pooled = torch.bmm(grad_logits, of_classes).to(dtype)
        grad_pooled = grad_pooled if through_offsets is None else grad_pooled + through_offsets
    else:
        grad_pooled = torch.baddbmm(through_offsets, grad_logits, of_classes)
    sums = torch.bmm(grad_logits.transpose(1, 2), lowered).to(dtype) if weights_needed else None
    return grad_pooled, sums, grad_logits.sum(1, dtype=dtype).to(biases.dtype)


def _through_offsets(grad_offsets: Tensor | None, inputs: Inputs, pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the offsets' weights and biases."""
    weights, biases = inputs.offset_weights, inputs.offset_biases
    if weights is None or biases is None:
        return pooled.new_empty(0), pooled.new_empty(0)
    if grad_offsets is None:
        return torch.zeros_like(weights), torch.zeros_like(biases)
    grad_weights = torch.bmm(grad_offsets.T.unsqueeze(1), pooled.expand(2, -1, -1)).squeeze(1)
    return grad_weights.to(weights.dtype), grad_offsets.sum(0).to(biases.dtype)


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
