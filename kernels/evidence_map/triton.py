"""evidence_map on Triton: projections and pixel norms from one read of the features.

How a program walks over its share of a sample, and what a tile is: `kernels/tiles.py`. The sums over channels,
F . v of R vectors and F . F, are made in parts [parts,B,R+1,P], one for each program that shares a pixel's channels.
A second, small launch adds the parts in order and divides.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.tiles import (
    PROGRAMS,
    STAGES,
    Tile,
    channel_share,
    load_rows,
    load_tile,
    load_window,
    own_share,
    store_rows,
    store_window,
    sum_across_threads,
    sum_in_threads,
)

# The fewest channels that a program is worth.
CHANNELS = 256

_SHORT_NORM = tl.constexpr(SHORT_NORM)


@triton.jit(do_not_specialize=["tiles_each"])
def _sums_kernel(
    features,
    vectors,
    parts,
    features_sample,
    tiles_each,
    R: tl.constexpr,
    tile: tl.constexpr,
):
    # features [B,C,P], vectors [B,R,C] -> parts [S,B,R+1,P], squares last; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = parts.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    sample = tl.program_id(0).to(tl.int64)
    first_row, row_end, window, window_end = own_share(tiles_each, tile)
    features += sample * features_sample
    vectors += sample * (R * tile.channels)
    parts += (channel_share(tile) * tl.num_programs(0) + sample) * ((R + 1) * tile.pixels)
    squares = parts + R * tile.pixels
    if tile.planar:
        dots = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        norms = tl.full([1, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            vector = load_rows(vectors, tile.channels, R, row, row_end, R_PADDED, dtype, tile)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            dots += sum_in_threads(vector * values, True, tile)
            norms += sum_in_threads(values * values, True, tile)
        store_window(parts, sum_across_threads(dots, True), tile.pixels, R, window, window_end, tile)
        store_window(squares, sum_across_threads(norms, True), 0, 1, window, window_end, tile)
    else:
        vector = load_window(vectors, tile.channels, R, window, window_end, R_PADDED, dtype, tile)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            dots = sum_across_threads(sum_in_threads(vector * values, False, tile), False)
            norms = sum_across_threads(sum_in_threads(values * values, False, tile), False)
            store_rows(parts, dots, tile.pixels, R, row, row_end, tile)
            store_rows(squares, norms, 0, 1, row, row_end, tile)


@triton.jit(do_not_specialize=["count"])
def _divide_kernel(parts, evidence, count, R: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    # parts [count,B,R+1,P] -> evidence [B,R,P]; in registers [R, BLOCK]
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    sample = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, R_PADDED)[:, None]
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (number < R) & (pixel < P)
    dots = tl.full([R_PADDED, BLOCK], 0, parts.dtype.element_ty)
    squares = tl.full([1, BLOCK], 0, parts.dtype.element_ty)
    for part in range(count):
        start = parts + (part * tl.num_programs(0) + sample) * ((R + 1) * P)
        dots += tl.load(start + number * P + pixel, mask=inside, other=0)
        squares += tl.load(start + R * P + pixel, mask=pixel < P, other=0)
    norm = tl.sqrt(squares)
    # NaN if the sum has overflowed, where dots / norm were 0.
    norm += norm - norm
    norm = tl.where(norm <= _SHORT_NORM, float("inf"), norm)
    tl.store(evidence + (sample * R + number) * P + pixel, dots / norm, mask=inside)


def plan_forward(features: Tensor, vectors: Tensor) -> tuple[Tensor, list[Launch]]:
    """Allocate the result of `forward` and describe the launches that fill it."""
    batch, _, height, width = features.shape
    count = vectors.shape[1]
    maps = features.flatten(2)
    tile = Tile.over(maps)
    split = tile.split(PROGRAMS // max(1, batch * tile.windows), CHANNELS) if tile.planar else tile.split()
    evidence = features.new_empty((batch, count, height, width), dtype=accumulation_dtype(features, vectors))
    parts = evidence.new_empty((split.channel_shares, batch, count + 1, tile.pixels))
    block = min(256, triton.next_power_of_2(tile.pixels))
    return evidence, [
        Launch(
            _sums_kernel,
            (batch, *split.grid),
            {
                "features": maps,
                "vectors": vectors.contiguous(),
                "parts": parts,
                "features_sample": maps.stride(0),
                "tiles_each": split.tiles_each,
            },
            {"R": count, "tile": tile},
        ),
        Launch(
            _divide_kernel,
            (batch, triton.cdiv(tile.pixels, block)),
            {"parts": parts, "evidence": evidence, "count": split.channel_shares},
            {"R": count, "P": tile.pixels, "BLOCK": block},
        ),
    ]


forward = launched(plan_forward)
