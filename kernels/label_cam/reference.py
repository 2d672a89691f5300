"""The oracle of label_cam, plain differentiable torch, and what its backward pass is given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype


class BackwardInputs(NamedTuple):
    """What the backward pass of every implementation is given."""

    grad_cams: Tensor
    grad_pooled: Tensor
    features: Tensor
    weights: Tensor
    labels: Tensor
    features_needed: bool
    weights_needed: bool


def label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    features, weights = features.to(dtype), weights.to(dtype)
    cams = torch.einsum("rbc,bchw->brhw", weights[:, labels], features)
    return cams, features.mean(dim=(2, 3))
