"""The oracle of inter_intra: plain differentiable torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iir_fast.kernels.inter_intra.inputs import Inputs
from iir_fast.kernels.subgroup_similarity.reference import subgroup_similarity, unit


def inter_intra(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments)
    dtype = inputs.dtype
    intra = inputs.terms[:, inputs.column].to(dtype).sum() / max(len(inputs.terms), 1)
    own = unit(inputs.backgrounds)
    contrast = own + own.sum(dim=0) / max(len(own), 1)
    inter = subgroup_similarity(inputs.foregrounds, contrast, inputs.groups)
    return inputs.intra_weight * intra + inputs.inter_weight * inter, intra, inter
