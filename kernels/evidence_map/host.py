"""evidence_map on ATen: one batched product and the pixel norms."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype


def forward(features: Tensor, vectors: Tensor) -> Tensor:
    dtype = accumulation_dtype(features, vectors)
    maps = features.flatten(2).to(dtype)
    norm = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    norm = norm.masked_fill(norm <= SHORT_NORM, torch.inf)
    evidence: Tensor = torch.bmm(vectors.to(dtype), maps).div_(norm).unflatten(2, features.shape[2:])
    return evidence
