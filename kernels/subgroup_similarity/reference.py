"""The oracle of subgroup_similarity, plain differentiable torch over the full matrix of pairs, and what the Triton
kernels go by: where rows come in the order of their groups."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype, nan_if_infinite

PLACES = 32
"""Rows that one program finds the places of."""


def new_places(groups: Tensor, repeats: int = 1) -> Tensor:
    """Allocate the places of `repeats` rows in turn for each element of `groups`: int32 [4,L], L whole programs' rows.

    The rows in the order of their groups; each group's first place, and its end, at every place of it; and the number
    of pairs, counted by their later row, of each program's rows at the first of these.
    """
    rows = len(groups) * repeats
    return torch.empty((4, -(-rows // PLACES) * PLACES), dtype=torch.int32, device=groups.device)


def unit(vectors: Tensor) -> Tensor:
    """Divide each row by its L2 norm; a row without length stays zero, with zero gradient."""
    squared = vectors.square().sum(dim=1, keepdim=True)
    short = squared <= SHORT_NORM**2
    return torch.where(short, 0.0, vectors) / nan_if_infinite(torch.where(short, 1.0, squared).sqrt())


def subgroup_similarity(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    dtype = accumulation_dtype(foreground, background)
    foreground, background = unit(foreground.to(dtype)), unit(background.to(dtype))
    apart = (foreground[:, None] - foreground[None]).square().sum(dim=2)
    contrast = (foreground - background).square().sum(dim=1)
    pair_loss = torch.nn.functional.softplus(apart - (contrast[:, None] + contrast[None]) / 2)
    same = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    return torch.where(same, pair_loss, 0.0).sum() / same.sum().clamp(min=1)
