"""The oracle of inter_intra: plain differentiable torch."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype
from iir_fast.kernels.subgroup_similarity.reference import subgroup_similarity, unit


def inter_intra(
    terms: Tensor,
    foreground: Tensor,
    background: Tensor,
    labels: Tensor,
    gate: Tensor | None,
    intra_weight: float,
    inter_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(terms, foreground, background)
    dual, agreement = (terms.to(dtype).sum(dim=0) / max(len(terms), 1)).unbind()
    intra = dual if gate is None else torch.lerp(dual, agreement, gate.detach().to(dtype))
    own = unit(background.flatten(0, 1).to(dtype))
    contrast = own + own.sum(dim=0) / max(len(own), 1)
    groups = labels.repeat_interleave(foreground.shape[1])
    inter = subgroup_similarity(foreground.flatten(0, 1).to(dtype), contrast, groups)
    return intra_weight * intra + inter_weight * inter, intra, inter
