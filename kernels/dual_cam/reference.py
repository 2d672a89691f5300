"""The oracle of dual_cam: plain differentiable torch, those of the operators that it is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels.dual_cam.inputs import Inputs
from iir_fast.kernels.label_cam.reference import label_cam
from iir_fast.kernels.masked_pool.reference import masked_pool
from iir_fast.kernels.regulate import TEMPERATURE
from iir_fast.kernels.regulate.reference import regulate


def dual_cam(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    weights, of_logits = inputs.weights, inputs.of_logits
    found = [
        label_cam(each, of_map, inputs.labels) for each, of_map in zip(inputs.maps, inputs.weights_by_map, strict=True)
    ]
    cams = torch.cat([each for each, _ in found], dim=1)
    pooled = torch.stack([each for _, each in found]).expand(2, -1, -1)
    lowered, of_classes = pooled.to(of_logits), weights.to(of_logits)
    logits = torch.einsum("rbd,rkd->rbk", lowered, of_classes) + inputs.biases.to(of_logits)[:, None]
    offsets = None
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        offsets = torch.einsum("rbd,rd->br", pooled, inputs.offset_weights.to(pooled.dtype))
        offsets = offsets + inputs.offset_biases.to(pooled.dtype)
    cam_a, cam_b = cams.unbind(1)
    terms, masks, normalized, cuts = regulate(cam_a, cam_b, inputs.thresholds, offsets, TEMPERATURE)
    return logits, cams, terms, masks, normalized, cuts, *masked_pool(inputs.features, masks)
