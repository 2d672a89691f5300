"""The oracle of evidence_map: plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype, nan_if_infinite


def evidence_map(features: Tensor, vectors: Tensor) -> Tensor:
    dtype = accumulation_dtype(features, vectors)
    features, vectors = features.to(dtype), vectors.to(dtype)
    norm = nan_if_infinite(features.square().sum(dim=1).sqrt())
    norm = torch.where(norm <= SHORT_NORM, torch.inf, norm)
    return torch.einsum("brc,bchw->brhw", vectors, features) / norm.unsqueeze(1)
