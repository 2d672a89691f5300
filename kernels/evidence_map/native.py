"""evidence_map on the compiled CPU kernels: projections and pixel norms from one read of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import SHORT_NORM, nan_if_infinite

MAX_VECTORS = 4


def supports(features: Tensor, vectors: Tensor) -> bool:
    """Tell whether the kernels take these."""
    return native.supports(features, vectors) and vectors.shape[1] <= MAX_VECTORS


def forward(features: Tensor, vectors: Tensor) -> Tensor:
    dots, _, squares = native.sums(features, vectors, None, squares=True)
    norm = nan_if_infinite(squares.sqrt_()).unsqueeze(1)
    evidence: Tensor = (dots / norm.masked_fill(norm <= SHORT_NORM, torch.inf)).unflatten(2, features.shape[2:])
    return evidence
