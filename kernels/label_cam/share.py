"""What a program of label_cam does with its share of a sample, or with all shares, one after another: on Triton.

Every pointer comes at the sample, and where there are several maps at its map; `share` is of `tiles.share_at`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from iir_fast.kernels.tiles import (
    STAGES,
    deal_window,
    load_tile,
    load_window,
    row_index,
    store_tile,
    sum_across_threads,
    sum_in_threads,
    window_index,
)


@triton.jit
def sum_share(
    features,
    weights,
    label,
    cams,
    pooled,
    classes,
    share,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    """Compute this share's part of the CAMs [R,P] and of the pooled map [C]: forward."""
    # features [C,P], weights [R,K,C] -> cams [R,P], pooled [C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = cams.dtype.element_ty
    first_row, row_end, window, window_end = share
    known = (label >= 0) & (label < classes)
    used = tl.where(known, R, 0)
    missing = tl.where(known, 0.0, float("nan"))
    stride = classes.to(tl.int64) * tile.channels
    weights += label * tile.channels
    classifier = tl.arange(0, R_PADDED)[:, None, None, None]
    elements = window_index(window, tile)

    if tile.planar:
        sums = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            rows = row_index(row, tile)
            inside = rows < row_end
            vectors = tl.load(weights + classifier * stride + rows, mask=(classifier < used) & inside, other=0)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            sums += sum_in_threads(vectors.to(dtype) * values, True, tile)
            mean = sum_across_threads(sum_in_threads(values, False, tile), False) * (1 / tile.pixels)
            tl.store(pooled + rows, mean, mask=inside)
        sums = sum_across_threads(sums, True) + missing
        tl.store(cams + classifier * tile.pixels + elements, sums, mask=(classifier < R) & (elements < window_end))
    else:
        vectors = load_window(weights, stride, used, window, window_end, R_PADDED, dtype, tile)
        means = tl.full([1, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            rows = row_index(row, tile)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            sums = sum_across_threads(sum_in_threads(vectors * values, False, tile), False) + missing
            tl.store(cams + classifier * tile.pixels + rows, sums, mask=(classifier < R) & (rows < row_end))
            means += sum_in_threads(values, True, tile)
        tl.store(pooled + elements, sum_across_threads(means, True) * (1 / tile.pixels), mask=elements < window_end)


@triton.jit
def _at_every_pixel(
    grad_pooled,
    cuts,
    offset_weights,
    added,
    apart,
    channel,
    inside,
    R: tl.constexpr,
    S: tl.constexpr,
    dtype: tl.constexpr,
    tile: tl.constexpr,
):
    """Return what a map's gradient holds at every pixel of these channels: that of the pooled map, and `added`."""
    # grad_pooled S x [C], cuts [R], offset_weights [R,C], added [C]; the result is shaped like channel
    total = tl.load(grad_pooled + channel, mask=inside, other=0).to(dtype)
    for part in tl.static_range(1, S):
        total += tl.load(grad_pooled + part * apart + channel, mask=inside, other=0).to(dtype)
    if cuts is not None:
        for r in tl.static_range(R):
            moved = tl.load(offset_weights + r * tile.channels + channel, mask=inside, other=0).to(dtype)
            total += tl.load(cuts + r).to(dtype) * moved
    total *= 1 / tile.pixels
    if added is not None:
        total += tl.load(added + channel, mask=inside, other=0)
    return total


@triton.jit
def differentiate_share(
    grad_cams,
    grad_pooled,
    differences,
    masks,
    added,
    cuts,
    offset_weights,
    features,
    weights,
    label,
    grad_features,
    per_sample,
    apart,
    classes,
    share,
    FEATURES_NEEDED: tl.constexpr,
    WEIGHTS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    S: tl.constexpr,
    M: tl.constexpr,
    M_PADDED: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    """Differentiate: this share of dF, and its part of the sample's weight gradient [R,C]; `grad_pooled` is the sum of
    S vectors that lie `apart`."""
    # grad_cams [R,P], differences [M,C], masks [M,P], features [C,P], weights [R,K,C] -> grad_features [C,P],
    # per_sample [R,C]; in registers [R or M, vector, rows, lanes]
    dtype: tl.constexpr = per_sample.dtype.element_ty
    first_row, row_end, window, window_end = share
    used = tl.where((label >= 0) & (label < classes), R, 0)
    stride = classes.to(tl.int64) * tile.channels
    weights += label * tile.channels
    classifier = tl.arange(0, R_PADDED)[:, None, None, None]

    if tile.planar:
        gradients = load_window(grad_cams, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)

    if FEATURES_NEEDED:
        if not tile.planar:
            channel = window + tl.arange(0, tile.vector * tile.lanes)
            everywhere = _at_every_pixel(
                grad_pooled, cuts, offset_weights, added, apart, channel, channel < window_end, R, S, dtype, tile
            )
            everywhere = deal_window(everywhere, 1, tile)
            vectors = load_window(weights, stride, used, window, window_end, R_PADDED, dtype, tile)
        if M > 0:
            region = tl.arange(0, M_PADDED)[:, None, None, None]
            if tile.planar:
                mask = load_window(masks, tile.pixels, M, window, window_end, M_PADDED, dtype, tile)
            else:
                difference = load_window(differences, tile.channels, M, window, window_end, M_PADDED, dtype, tile)
        for row in range(first_row, row_end, tile.rows):
            rows = row_index(row, tile)
            inside = rows < row_end
            if tile.planar:
                vectors = tl.load(weights + classifier * stride + rows, mask=(classifier < used) & inside, other=0)
                vectors = vectors.to(dtype)
                everywhere = _at_every_pixel(
                    grad_pooled, cuts, offset_weights, added, apart, rows, inside, R, S, dtype, tile
                )
                if M > 0:
                    source = differences + region * tile.channels + rows
                    difference = tl.load(source, mask=(region < M) & inside, other=0)
            else:
                source = grad_cams + classifier * tile.pixels + rows
                gradients = tl.load(source, mask=(classifier < R) & inside, other=0)
                gradients = gradients.to(dtype)
                if M > 0:
                    source = masks + region * tile.pixels + rows
                    mask = tl.load(source, mask=(region < M) & inside, other=0).to(dtype)
            gradient = tl.sum(vectors * gradients, 0, keep_dims=True) + everywhere
            if M > 0:
                gradient += tl.sum(difference * mask, 0, keep_dims=True)
            store_tile(grad_features, gradient, row, row_end, window, window_end, written)

    if WEIGHTS_NEEDED:
        per_sample += classifier * tile.channels
        sums = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            rows = row_index(row, tile)
            inside = (classifier < R) & (rows < row_end)
            if not tile.planar:
                gradients = tl.load(grad_cams + classifier * tile.pixels + rows, mask=inside, other=0).to(dtype)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            products = sum_in_threads(values * gradients, not tile.planar, tile)
            if tile.planar:
                tl.store(per_sample + rows, sum_across_threads(products, False), mask=inside)
            else:
                sums += products
        if not tile.planar:
            elements = window_index(window, tile)
            inside = (classifier < R) & (elements < window_end)
            tl.store(per_sample + elements, sum_across_threads(sums, True), mask=inside)
