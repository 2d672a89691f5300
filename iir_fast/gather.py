"""Rows of every rank, with gradients, for criteria that every rank computes alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ranks = dist.get_world_size()
        ctx.rows = len(rows)
        gathered = rows.new_empty((ranks * len(rows), *rows.shape[1:]))
        # The second name of the two is deprecated since torch 2.14, which has the first.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        gather(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every rank computes the same criterion, so each holds the whole gradient of these rows already. The sum over
        # ranks that the gathering's adjoint asks for is the world size times it, which DDP's mean divides by again.
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows] * dist.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate [B,...] of all ranks to [ranks*B,...] in the order of the ranks.

    The shape is the same on every rank. The gradient, where the dtype is floating, assumes that every rank computes the
    same function of the result and that gradients are averaged over ranks, as DistributedDataParallel does. Without an
    initialized process group there is one rank.
    """
    if not dist.is_available() or not dist.is_initialized():
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered
