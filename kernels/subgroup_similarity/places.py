"""Where rows come in the order of their groups: what the Triton kernels go by."""

from __future__ import annotations

import torch
from torch import Tensor

PLACES = 32
"""Rows that one program finds the places of."""


def new_places(groups: Tensor, repeats: int = 1) -> Tensor:
    """Room for the places of `repeats` rows in turn for each element of `groups`: int32 [4,L], L whole programs' rows.

    The rows in the order of their groups; each group's first place, and its end, at every place of it; and the number
    of pairs, counted by their later row, of each program's rows at the first of these.
    """
    rows = len(groups) * repeats
    return torch.empty((4, -(-rows // PLACES) * PLACES), dtype=torch.int32, device=groups.device)


def find_places(groups: Tensor, repeats: int = 1) -> Tensor:
    """Find the places, by torch: what the Triton kernels can go on from where another backend ran before."""
    groups = groups.repeat_interleave(repeats)
    rows, order = groups.sort(stable=True)
    first, last = torch.searchsorted(rows, rows), torch.searchsorted(rows, rows, right=True)
    places = new_places(groups).zero_()
    places[1, len(rows) :] = len(rows)
    places[0, : len(rows)], places[1, : len(rows)], places[2, : len(rows)] = order, first, last
    earlier = torch.zeros(places.shape[1], dtype=torch.int64, device=groups.device)
    earlier[order] = torch.arange(len(rows), device=groups.device) - first
    places[3, ::PLACES] = earlier.view(-1, PLACES).sum(1)
    return places
