"""The oracle of masked_pool, plain differentiable torch, and what its backward pass is given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import MASS_EPSILON, accumulation_dtype


class BackwardInputs(NamedTuple):
    """What the backward pass of every implementation is given."""

    grad_foreground: Tensor
    grad_background: Tensor
    features: Tensor
    masks: Tensor
    foreground: Tensor
    """[B,R,C]: the result, as `background`."""
    background: Tensor
    features_needed: bool
    masks_needed: bool = True


def masked_pool(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, masks)
    features, masks = features.to(dtype), masks.to(dtype)

    def mean_under(mask: Tensor) -> Tensor:
        mass = mask.sum(dim=(2, 3)) + MASS_EPSILON
        return torch.einsum("brhw,bchw->brc", mask, features) / mass.unsqueeze(2)

    return mean_under(masks), mean_under(1 - masks)
