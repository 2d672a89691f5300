"""subgroup_similarity in closed form, without the matrix of pairs: on the compiled CPU kernels, or on ATen.

Compiled, the rows of a group meet pair by pair. What the kernels do not support, and large groups, whose matrix
products do more with each row that they read, run on ATen: rows sorted by group, tiles of rows against the columns that
their groups span. Memory is O(N*C + tile * span), work proportional to N * (tile + largest group).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype, is_fake, nan_if_infinite
from iir_fast.kernels.subgroup_similarity.reference import PLACES, new_places

ROWS_OF_A_PART = 8
# Above so many partners per row on average.
MAX_PARTNERS = 96
TILE_ROWS = 256


class Places(NamedTuple):
    """int64 [N] each: the rows in the order of their groups, and for each place where its group begins and ends."""

    order: Tensor
    first: Tensor
    last: Tensor


def _places_of(groups: Tensor) -> Places:
    """Sort rows by their groups, in their own order within one."""
    ordered, order = torch.sort(groups, stable=True)
    return Places(order, torch.searchsorted(ordered, ordered), torch.searchsorted(ordered, ordered, right=True))


def find_places(groups: Tensor, repeats: int = 1) -> Tensor:
    """Find what `new_places` describes, for Triton kernels to go on from where another backend ran before."""
    order, first, last = _places_of(groups.repeat_interleave(repeats))
    rows, places = len(order), new_places(groups, repeats).zero_()
    places[1, rows:] = rows
    places[:3, :rows] = torch.stack((order, first, last))
    earlier = torch.zeros(places.shape[1], dtype=torch.int64, device=groups.device)
    earlier[order] = torch.arange(rows, device=groups.device) - first
    places[3, ::PLACES] = earlier.view(-1, PLACES).sum(1)
    return places


class _Similarity(ctypes.Structure):
    """`Similarity` in native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("foreground", "background", "order", "first", "last")),
        *((name, ctypes.c_long) for name in ("rows", "channels", "rows_of_a_part")),
        ("shortest", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("lengths", "totals")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("grad_foreground", "grad_background")),
    )


def _places(foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Places, int] | None:
    """Find where the rows stand, and the number of unordered pairs; None if this is nothing for the kernels."""
    if not native.supports_small(foreground, background):
        return None
    places = _places_of(groups)
    pairs = int((places.last - places.first - 1).sum()) // 2
    return (places, pairs) if 2 * pairs <= MAX_PARTNERS * len(groups) else None


def _run(
    foreground: Tensor, background: Tensor, places: Places, backward: bool, scale: float, **outputs: Tensor
) -> None:
    # These are referred to until the call returns.
    foreground, background = foreground.float().contiguous(), background.float().contiguous()
    rows, channels = foreground.shape
    lengths = torch.empty(rows, 3)
    work = _Similarity(
        foreground=native.address(foreground),
        background=native.address(background),
        order=native.address(places.order),
        first=native.address(places.first),
        last=native.address(places.last),
        rows=rows,
        channels=channels,
        rows_of_a_part=ROWS_OF_A_PART,
        shortest=SHORT_NORM,
        lengths=native.address(lengths),
        scale=scale,
        **{name: native.address(tensor) for name, tensor in outputs.items()},
    )
    kernels = native.kernels()
    assert kernels is not None
    kernels.call("iir_fast_similarity", work, backward, threads=native.threads_for(2 * foreground.nbytes))


def forward(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    if is_fake(foreground):
        return foreground.new_empty(())
    found = _places(foreground, background, groups)
    if found is None:
        return _forward_by_tiles(foreground, background, groups)
    places, pairs = found
    totals = torch.empty(-(-len(groups) // ROWS_OF_A_PART), dtype=torch.float64)
    _run(foreground, background, places, False, 0.0, totals=totals)
    return (totals.sum() / max(pairs, 1)).float()


def backward(grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    if is_fake(foreground):
        return foreground.new_empty(foreground.shape), background.new_empty(background.shape)
    found = _places(foreground, background, groups)
    if found is None:
        return _backward_by_tiles(grad_inter, foreground, background, groups)
    places, pairs = found
    grad_foreground, grad_background = (torch.empty(foreground.shape) for _ in range(2))
    scale = float(grad_inter) / max(pairs, 1)
    outputs = {"grad_foreground": grad_foreground, "grad_background": grad_background}
    _run(foreground, background, places, True, scale, **outputs)
    return grad_foreground.to(foreground.dtype), grad_background.to(background.dtype)


class _Sorted(NamedTuple):
    """Unit descriptors in the order of their groups."""

    order: Tensor
    foreground: Tensor
    background: Tensor
    foreground_norm: Tensor
    background_norm: Tensor
    length: Tensor
    """[N,1]: squared norm of the unit foreground, 1 or 0."""
    contrast: Tensor
    """[N,1]: ||f - g||^2."""
    first: Tensor
    """[N]: where the row's group begins."""
    last: Tensor
    """[N]: one past where it ends."""
    pairs: Tensor
    """Number of ordered same-group pairs, at least 1."""


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows and their norms [N,1]; a row without length becomes zero and has norm inf, so its gradient is zero."""
    norm = nan_if_infinite(torch.linalg.vector_norm(vectors, dim=1, keepdim=True))
    norm = norm.masked_fill(norm <= SHORT_NORM, torch.inf)
    return vectors / norm, norm


def _sort(foreground: Tensor, background: Tensor, groups: Tensor) -> _Sorted:
    dtype = accumulation_dtype(foreground, background)
    order, first, last = _places_of(groups)
    unit_foreground, foreground_norm = _unit(foreground[order].to(dtype))
    unit_background, background_norm = _unit(background[order].to(dtype))
    return _Sorted(
        order,
        unit_foreground,
        unit_background,
        foreground_norm,
        background_norm,
        unit_foreground.square().sum(1, keepdim=True),
        (unit_foreground - unit_background).square().sum(1, keepdim=True),
        first,
        last,
        (last - first - 1).sum().clamp(min=1),
    )


def _tiles(rows: _Sorted) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Yield rows, columns, the argument of softplus [rows, columns] and which entries are pairs."""
    count = len(rows.order)
    position = torch.arange(count, device=rows.order.device)
    for start in range(0, count, TILE_ROWS):
        stop = min(start + TILE_ROWS, count)
        tile, span = slice(start, stop), slice(int(rows.first[start]), int(rows.last[stop - 1]))
        # ||f_i - f_j||^2 - (c_i + c_j) / 2, the square expanded so that one matrix product does the work.
        per_row = rows.length - rows.contrast / 2
        argument = torch.addmm(per_row[span].T, rows.foreground[tile], rows.foreground[span].T, alpha=-2)
        argument += per_row[tile]
        column = position[span]
        same = (column >= rows.first[tile, None]) & (column < rows.last[tile, None])
        yield tile, span, argument, same & (column != position[tile, None])


def _forward_by_tiles(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    rows = _sort(foreground, background, groups)
    total = rows.contrast.new_zeros(())
    for _, _, argument, paired in _tiles(rows):
        total += torch.nn.functional.softplus(argument).masked_fill(~paired, 0).sum()
    return total / rows.pairs


def _backward_by_tiles(
    grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor]:
    rows = _sort(foreground, background, groups)
    weight = torch.empty_like(rows.contrast)
    pulled = torch.empty_like(rows.foreground)
    for tile, span, argument, paired in _tiles(rows):
        slope = torch.sigmoid(argument).masked_fill(~paired, 0)
        weight[tile] = slope.sum(1, keepdim=True)
        pulled[tile] = slope @ rows.foreground[span]
    scale = 2 * grad_inter / rows.pairs
    away = scale * weight * (rows.foreground - rows.background)
    grad_foreground = 2 * scale * (weight * rows.foreground - pulled) - away
    return (
        _through_unit(grad_foreground, rows.foreground, rows.foreground_norm, rows.order, foreground),
        _through_unit(away, rows.background, rows.background_norm, rows.order, background),
    )


def _through_unit(gradient: Tensor, unit: Tensor, norm: Tensor, order: Tensor, like: Tensor) -> Tensor:
    """Gradient of the raw rows from that of the unit rows, back in the caller's order and dtype."""
    gradient = (gradient - unit * (unit * gradient).sum(1, keepdim=True)) / norm
    return torch.empty(like.shape, dtype=like.dtype, device=like.device).index_copy_(0, order, gradient.to(like.dtype))
