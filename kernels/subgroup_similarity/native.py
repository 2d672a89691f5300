"""subgroup_similarity on the compiled host kernels: rows meet the rows of their group, pair by pair.

Large groups are left to ATen, whose matrix products do more with each row that they read.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import SHORT_NORM, is_fake
from iir_fast.kernels.subgroup_similarity import host

ROWS_OF_A_PART = 8
# Above so many partners per row on average.
MOST_PARTNERS = 96


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


def _places(foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[host.Places, int] | None:
    """Where the rows stand, and the number of unordered pairs; None if this is nothing for the kernels."""
    if not native.serves_small(foreground, background):
        return None
    places = host.places_of(groups)
    pairs = int((places.last - places.first - 1).sum()) // 2
    return (places, pairs) if 2 * pairs <= MOST_PARTNERS * len(groups) else None


def _run(
    foreground: Tensor, background: Tensor, places: host.Places, backward: bool, scale: float, **outputs: Tensor
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
        return host.forward(foreground, background, groups)
    places, pairs = found
    totals = torch.empty(-(-len(groups) // ROWS_OF_A_PART), dtype=torch.float64)
    _run(foreground, background, places, False, 0.0, totals=totals)
    return (totals.sum() / max(pairs, 1)).float()


def backward(grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    if is_fake(foreground):
        return foreground.new_empty(foreground.shape), background.new_empty(background.shape)
    found = _places(foreground, background, groups)
    if found is None:
        return host.backward(grad_inter, foreground, background, groups)
    places, pairs = found
    grad_foreground, grad_background = (torch.empty(foreground.shape) for _ in range(2))
    scale = float(grad_inter) / max(pairs, 1)
    outputs = {"grad_foreground": grad_foreground, "grad_background": grad_background}
    _run(foreground, background, places, True, scale, **outputs)
    return grad_foreground.to(foreground.dtype), grad_background.to(background.dtype)
