"""The oracle of masked_pool: plain differentiable torch."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import MASS_EPSILON, accumulation_dtype


def masked_pool(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, masks)
    features, masks = features.to(dtype), masks.to(dtype)

    def mean_under(mask: Tensor) -> Tensor:
        mass = mask.sum(dim=(2, 3)) + MASS_EPSILON
        return torch.einsum("brhw,bchw->brc", mask, features) / mass.unsqueeze(2)

    return mean_under(masks), mean_under(1 - masks)
