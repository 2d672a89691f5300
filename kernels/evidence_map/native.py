"""evidence_map on the compiled host kernels: projections and pixel norms from one read of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import SHORT_NORM
from iir_fast.kernels.evidence_map import host

MOST_VECTORS = 4


def forward(features: Tensor, vectors: Tensor) -> Tensor:
    if not native.serves(features, vectors) or vectors.shape[1] > MOST_VECTORS:
        return host.forward(features, vectors)
    dots, _, squares = native.sums(features, vectors, None, squares=True)
    norm = squares.sqrt_().unsqueeze(1)
    evidence: Tensor = (dots / norm.masked_fill(norm <= SHORT_NORM, torch.inf)).unflatten(2, features.shape[2:])
    return evidence
