"""inter_intra on `subgroup_similarity` in closed form, the rest in a few ATen calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, nan_if_infinite
from iir_fast.kernels.inter_intra.reference import Inputs, incoming
from iir_fast.kernels.selection import may_run_triton
from iir_fast.kernels.subgroup_similarity import native as subgroup_similarity
from iir_fast.kernels.subgroup_similarity.reference import new_places


def forward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    intra = inputs.terms[:, inputs.column].to(inputs.dtype).sum() / max(len(inputs.terms), 1)
    backgrounds = inputs.backgrounds
    inverse = nan_if_infinite(torch.linalg.vector_norm(backgrounds, dim=1))
    # The inverse length of a vector without a direction is 0: then so is its unit vector.
    inverse = torch.where(inverse <= SHORT_NORM, 0, 1 / inverse)
    own = backgrounds * inverse.unsqueeze(1)
    mean = own.sum(0) / max(len(own), 1)
    inter = subgroup_similarity.forward(inputs.foregrounds, own + mean, inputs.groups)
    # What the compiled kernels have no use for, Triton's may have to go on from.
    given = inputs.labels, inputs.foreground.shape[1]
    places = subgroup_similarity.find_places(*given) if may_run_triton(mean.device.type) else new_places(*given).zero_()
    loss = inputs.intra_weight * intra + inputs.inter_weight * inter
    return loss, intra, inter, mean, inverse, places


def backward(
    grad_loss: Tensor | None, grad_intra: Tensor | None, grad_inter: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    inputs, (mean, inverse, _) = Inputs(*arguments[:7]), arguments[7:]
    to_intra, intra_weight = incoming(grad_intra, grad_loss, inputs.intra_weight, mean)
    to_inter, inter_weight = incoming(grad_inter, grad_loss, inputs.inter_weight, mean)
    grad_terms = torch.zeros_like(inputs.terms)
    grad_terms[:, inputs.column] = to_intra * intra_weight / max(len(inputs.terms), 1)
    own = inputs.backgrounds * inverse.unsqueeze(1)
    grad_foreground, grad_background = subgroup_similarity.backward(
        to_inter * inter_weight, inputs.foregrounds, own + mean, inputs.groups
    )
    # In place: these are as large as all descriptors, of all ranks.
    grad_background += grad_background.sum(0) / max(len(own), 1)
    along = (own * grad_background).sum(1, keepdim=True)
    grad_background.sub_(own.mul_(along)).mul_(inverse.unsqueeze(1))
    return (
        grad_terms,
        grad_foreground.view(inputs.foreground.shape).to(inputs.foreground.dtype),
        grad_background.view(inputs.background.shape).to(inputs.background.dtype),
    )
