"""The gate of the `mixed` regulation: how discriminative the foreground descriptors of a batch are."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_fast.kernels import segment_sum


@torch.no_grad()
def mixing_gate(foreground: Tensor, labels: Tensor) -> Tensor:
    """Share of the `agreement` regulation in `mixed`, from the inter-sample evidence of a batch.

    rho = mean_i (mean ||f_i - f_j||^2 over same-class j) / (mean over other-class j) on unit descriptors, clamped to
    [0,1] and averaged over the classifiers; gate = max(0, 1 - (2.5 rho)^2)^2. The mean distances follow from class
    sums, O(B*C). Samples without a same-class partner do not count.

    Args:
        foreground: [B,R,C] descriptors under R classifiers, any length.
        labels: int64 [B].

    Returns:
        Scalar in [0,1] without gradient; 0 when the batch has one class only or no same-class pair.
    """
    unit = torch.nn.functional.normalize(foreground, dim=2)
    batch = len(labels)
    # A class is named by the first position of its label in sorted order: no class count, no data-dependent shape.
    group = torch.searchsorted(labels.sort().values, labels)

    def over_class(rows: Tensor) -> Tensor:
        return segment_sum(rows, group, batch)[group]

    square = unit.square().sum(dim=2)
    members = over_class(torch.ones_like(square))
    class_square, class_vector = over_class(square), over_class(unit)
    partners, others = members - 1, batch - members

    same = class_square - square + partners * square - 2 * (unit * (class_vector - unit)).sum(2)
    other = square.sum(0) - class_square + others * square - 2 * (unit * (unit.sum(0) - class_vector)).sum(2)
    same, other = same / partners.clamp(min=1), other / others.clamp(min=1)

    counts = (partners > 0) & (other > 0)
    ratio = torch.where(counts, same / torch.where(counts, other, 1.0), 0.0)
    rho = (ratio.sum(0) / counts.sum(0).clamp(min=1)).clamp(0, 1)
    rho = torch.where(counts.any(0), rho, 1.0).mean()
    return (1 - (2.5 * rho) ** 2).clamp(min=0) ** 2
