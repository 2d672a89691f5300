"""The oracle of inter_intra: plain differentiable torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels.inter_intra.inputs import Inputs
from iir_fast.kernels.subgroup_similarity.reference import subgroup_similarity, unit


def inter_intra(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments)
    dtype = inputs.dtype
    dual, agreement = (inputs.terms.to(dtype).sum(dim=0) / max(len(inputs.terms), 1)).unbind()
    intra = dual if inputs.gate is None else torch.lerp(dual, agreement, inputs.gate.detach().to(dtype))
    own = unit(inputs.backgrounds)
    contrast = own + own.sum(dim=0) / max(len(own), 1)
    inter = subgroup_similarity(inputs.foregrounds, contrast, inputs.groups)
    return inputs.intra_weight * intra + inputs.inter_weight * inter, intra, inter
