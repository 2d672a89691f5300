"""The oracle of label_cam: plain differentiable torch."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype


def label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    features, weights = features.to(dtype), weights.to(dtype)
    cams = torch.einsum("rbc,bchw->brhw", weights[:, labels], features)
    return cams, features.mean(dim=(2, 3))
