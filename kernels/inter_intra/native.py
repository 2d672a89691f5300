"""inter_intra on CPU tensors: pairs on the compiled host kernels where these serve, the rest in a few ATen calls."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype
from iir_fast.kernels.subgroup_similarity import native as subgroup_similarity


def forward(
    terms: Tensor,
    foreground: Tensor,
    background: Tensor,
    labels: Tensor,
    gate: Tensor | None,
    intra_weight: float,
    inter_weight: float,
) -> tuple[Tensor, ...]:
    dtype = accumulation_dtype(terms, foreground, background)
    shares = _shares(gate, dtype, terms.device)
    intra = (terms.to(dtype).sum(0) * shares).sum() / max(len(terms), 1)
    rows = background.flatten(0, 1).to(dtype)
    inverse = torch.linalg.vector_norm(rows, dim=1)
    # The inverse length of a vector without a direction is 0: then so is its unit vector.
    inverse = torch.where(inverse <= SHORT_NORM, 0, 1 / inverse)
    own = rows * inverse.unsqueeze(1)
    contrast = own + own.sum(0) / max(len(own), 1)
    inter = subgroup_similarity.forward(foreground.flatten(0, 1).to(dtype), contrast, _groups(labels, foreground))
    return intra_weight * intra + inter_weight * inter, intra, inter, contrast, inverse


def backward(
    grad_loss: Tensor | None,
    grad_intra: Tensor | None,
    grad_inter: Tensor | None,
    terms: Tensor,
    foreground: Tensor,
    background: Tensor,
    labels: Tensor,
    gate: Tensor | None,
    intra_weight: float,
    inter_weight: float,
    contrast: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = contrast.dtype
    to_intra = _total(grad_intra, grad_loss, intra_weight, contrast)
    to_inter = _total(grad_inter, grad_loss, inter_weight, contrast)
    grad_terms = (to_intra * _shares(gate, dtype, terms.device) / max(len(terms), 1)).expand(terms.shape)
    rows = foreground.flatten(0, 1).to(dtype)
    groups = _groups(labels, foreground)
    grad_foreground, grad_background = subgroup_similarity.backward(to_inter, rows, contrast, groups)
    own = background.flatten(0, 1).to(dtype) * inverse.unsqueeze(1)
    # In place: these are as large as all descriptors, of all ranks.
    grad_background += grad_background.sum(0) / max(len(own), 1)
    along = (own * grad_background).sum(1, keepdim=True)
    grad_background.sub_(own.mul_(along)).mul_(inverse.unsqueeze(1))
    return (
        grad_terms.to(terms.dtype).clone(),
        grad_foreground.view(foreground.shape).to(foreground.dtype),
        grad_background.view(background.shape).to(background.dtype),
    )


def _groups(labels: Tensor, foreground: Tensor) -> Tensor:
    return labels.repeat_interleave(foreground.shape[1])


def _shares(gate: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[2]: of the `dual` and of the `agreement` regulation."""
    if gate is None:
        return torch.tensor((1.0, 0.0), dtype=dtype, device=device)
    return torch.stack((1 - gate, gate)).to(dtype)


def _total(own: Tensor | None, of_loss: Tensor | None, weight: float, like: Tensor) -> Tensor:
    """The gradient that reaches a part of the loss, on its own and through the loss."""
    total = like.new_zeros(())
    if own is not None:
        total = total + own
    return total if of_loss is None else total + weight * of_loss
