"""The oracle of inter_intra, plain differentiable torch, and what its implementations are given."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype
from iir_fast.kernels.subgroup_similarity.reference import subgroup_similarity, unit


class Inputs(NamedTuple):
    """What inter_intra takes."""

    terms: Tensor
    foreground: Tensor
    background: Tensor
    labels: Tensor
    column: int
    """Which of the terms is the regulation: 0 or 1."""
    intra_weight: float
    inter_weight: float

    @property
    def dtype(self) -> torch.dtype:
        return accumulation_dtype(self.terms, self.foreground, self.background)

    @property
    def foregrounds(self) -> Tensor:
        """[N,C] in that dtype."""
        return self.foreground.flatten(0, 1).to(self.dtype)

    @property
    def backgrounds(self) -> Tensor:
        """[N,C] in that dtype."""
        return self.background.flatten(0, 1).to(self.dtype)

    @property
    def groups(self) -> Tensor:
        """[N]: the label of each region's image."""
        return self.labels.repeat_interleave(self.foreground.shape[1])


def incoming(own: Tensor | None, of_loss: Tensor | None, weight: float, like: Tensor) -> tuple[Tensor, float]:
    """Return the gradient that reaches a part of the loss, on its own and through the loss, and what it is multiplied
    by."""
    if own is None:
        return (like.new_zeros(()), 1.0) if of_loss is None else (of_loss, weight)
    return (own, 1.0) if of_loss is None else (own + weight * of_loss, 1.0)


def inter_intra(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments)
    dtype = inputs.dtype
    intra = inputs.terms[:, inputs.column].to(dtype).sum() / max(len(inputs.terms), 1)
    own = unit(inputs.backgrounds)
    contrast = own + own.sum(dim=0) / max(len(own), 1)
    inter = subgroup_similarity(inputs.foregrounds, contrast, inputs.groups)
    return inputs.intra_weight * intra + inputs.inter_weight * inter, intra, inter
