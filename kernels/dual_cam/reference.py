"""The oracle of dual_cam: plain differentiable torch, those of the operators that it is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.label_cam.reference import label_cam
from iir_fast.kernels.masked_pool.reference import masked_pool
from iir_fast.kernels.regulate import TEMPERATURE
from iir_fast.kernels.regulate.reference import regulate


def dual_cam(
    features: Tensor,
    map_a: Tensor | None,
    map_b: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    offset_weights: Tensor | None,
    offset_biases: Tensor | None,
    thresholds: Tensor | None,
    of_logits: torch.dtype,
) -> tuple[Tensor, ...]:
    maps = [features, features] if map_a is None or map_b is None else [map_a, map_b]
    found = [label_cam(each, of_one[None], labels) for each, of_one in zip(maps, weights, strict=True)]
    cams = torch.cat([each for each, _ in found], dim=1)
    pooled = torch.stack([each for _, each in found])
    lowered, of_classes = pooled.to(of_logits), weights.to(of_logits)
    logits = torch.einsum("rbd,rkd->rbk", lowered, of_classes) + biases.to(of_logits)[:, None]
    offsets = None
    if offset_weights is not None and offset_biases is not None:
        offsets = torch.einsum("rbd,rd->br", pooled, offset_weights.to(pooled.dtype)) + offset_biases.to(pooled.dtype)
    cam_a, cam_b = cams.unbind(1)
    terms, masks, normalized, cuts = regulate(cam_a, cam_b, thresholds, offsets, TEMPERATURE, False)
    return logits, cams, terms, masks, normalized, cuts, *masked_pool(features, masks)
