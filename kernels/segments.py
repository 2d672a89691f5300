"""Sums over groups of rows, in a fixed order: the same bits on every run, on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum the rows of each group.

    Args:
        rows: [N, ...] values.
        groups: int64 [N], each in [0, count).
        count: number of groups G.

    Returns:
        [G, ...] sums in the rows' dtype; zero for a group without rows.
    """
    sums = torch.zeros((count, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    if rows.device.type == "cpu":
        return sums.index_add_(0, groups, rows)
    # index_add_ is atomic on a GPU; index_put_ with accumulate sorts first and is deterministic there.
    return sums.index_put_((groups,), rows, accumulate=True)
