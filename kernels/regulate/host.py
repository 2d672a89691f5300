"""regulate in closed form on ATen: both maps in one [B,2,P] tensor, the gradient as the room's docstring has it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, accumulation_dtype


class _State(NamedTuple):
    """What forward and backward both need; all [B,2,P] or [B,2,1]."""

    cams: Tensor
    low: Tensor
    high: Tensor
    span: Tensor
    maps: Tensor
    mean: Tensor
    cut: Tensor
    soft: Tensor
    masks: Tensor


def _state(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
) -> _State:
    dtype = accumulation_dtype(cam_a, cam_b)
    cams = torch.stack((cam_a.to(dtype), cam_b.to(dtype)), dim=1).flatten(2)
    low, high = torch.aminmax(cams, dim=2, keepdim=True)
    span = high - low
    flat = span <= FLAT_RELATIVE * torch.maximum(low.abs(), high.abs()) + FLAT_ABSOLUTE
    # Dividing by infinity gives a constant map the value 0 and the gradient 0, and lets NaN through.
    span = span.masked_fill(flat, torch.inf)
    maps = (cams - low) / span
    mean = maps.mean(2, keepdim=True)
    cut = mean if thresholds is None else thresholds.to(dtype).unsqueeze(2)
    if offsets is not None:
        cut = torch.sigmoid((1 - torch.tanh(offsets.to(dtype))).unsqueeze(2) * torch.logit(mean, eps=MEAN_MARGIN))
    distance = maps - cut
    soft = torch.sigmoid(distance / temperature)
    masks = (distance >= 0).to(dtype).masked_fill(distance.isnan(), torch.nan) if hard else soft
    return _State(cams, low, high, span, maps, mean, cut, soft, masks)


def forward(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    state = _state(cam_a, cam_b, thresholds, offsets, temperature, hard)
    (map_a, map_b), (mask_a, mask_b) = state.maps.unbind(1), state.masks.unbind(1)
    dual = mask_a * mask_b * map_a * map_b + (1 - mask_a) * (1 - mask_b) * (map_a - map_b) ** 2
    agreement = mask_a * (1 - mask_b) + mask_b * (1 - mask_a)
    terms = torch.stack((dual.mean(1), agreement.mean(1)), dim=1)
    shape = (cam_a.shape[0], 2, *cam_a.shape[1:])
    return terms, state.masks.reshape(shape), state.maps.reshape(shape), state.cut.squeeze(2).clone()


def backward_of_both(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of both CAMs [B,2,H,W], in the accumulation dtype, and of what was given of thresholds and offsets."""
    state = _state(cam_a, cam_b, thresholds, offsets, temperature, hard)
    pixels = state.cams.shape[2]
    grad_dual, grad_agreement = (grad_terms / pixels).unsqueeze(2).unbind(1)
    # Each map sees the other one: flip(1) puts B beside A and A beside B.
    other_maps, other_masks = state.maps.flip(1), state.masks.flip(1)
    difference = state.maps - other_maps
    grad_mask = (
        grad_masks.flatten(2)
        + grad_dual.unsqueeze(1) * (other_masks * state.maps * other_maps - (1 - other_masks) * difference**2)
        + grad_agreement.unsqueeze(1) * (1 - 2 * other_masks)
    )
    through_mask = grad_mask * state.soft * (1 - state.soft) / temperature
    grad_map = through_mask + grad_dual.unsqueeze(1) * (
        state.masks * other_masks * other_maps + 2 * (1 - state.masks) * (1 - other_masks) * difference
    )
    if grad_maps is not None:
        grad_map = grad_map + grad_maps.flatten(2)
    grad_cut = -through_mask.sum(2, keepdim=True)
    if grad_thresholds is not None:
        grad_cut = grad_cut + grad_thresholds.unsqueeze(2)
    grad_given = grad_cut.squeeze(2)
    if offsets is not None:
        mean, cut = state.mean.squeeze(2), state.cut.squeeze(2)
        w = (1 - torch.tanh(offsets.to(mean.dtype))) / 2
        slope = cut * (1 - cut)
        kept = (mean >= MEAN_MARGIN) & (mean <= 1 - MEAN_MARGIN)
        to_mean = torch.where(kept, 2 * slope * w / (mean * (1 - mean)), 0)
        grad_given = -4 * grad_given * slope * w * (1 - w) * torch.logit(mean, eps=MEAN_MARGIN)
        grad_cut = grad_cut * to_mean.unsqueeze(2)
    if thresholds is None:
        grad_map = grad_map + grad_cut / pixels
    at_low, at_high = state.cams == state.low, state.cams == state.high
    scaled = grad_map / state.span
    grad_low = (scaled * (state.maps - 1)).sum(2, keepdim=True) / at_low.sum(2, keepdim=True)
    grad_high = -(scaled * state.maps).sum(2, keepdim=True) / at_high.sum(2, keepdim=True)
    grad_cams = (scaled + at_low * grad_low + at_high * grad_high).reshape(cam_a.shape[0], 2, *cam_a.shape[1:])
    given = offsets if thresholds is None else thresholds
    return grad_cams, cam_a.new_empty(0) if given is None else grad_given.to(given.dtype)


def split(grad_cams: Tensor, cam_a: Tensor, cam_b: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients apart, in the dtypes of the CAMs. Copies: results that share memory are none of their own."""
    grad_a, grad_b = grad_cams.unbind(1)
    return (
        grad_a.to(cam_a.dtype, copy=True, memory_format=torch.contiguous_format),
        grad_b.to(cam_b.dtype, copy=True, memory_format=torch.contiguous_format),
    )
