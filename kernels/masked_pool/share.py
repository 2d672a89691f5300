"""What a program of masked_pool does with its share of a sample, or with all shares, one after another: on Triton.

Every pointer comes at the sample; `share` is of `tiles.share_at`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from iir_fast.kernels.contract import MASS_EPSILON
from iir_fast.kernels.tiles import (
    STAGES,
    load_tile,
    load_window,
    pick_rows,
    pick_window,
    row_index,
    store_tile,
    sum_across_threads,
    sum_in_threads,
    window_index,
)

_MASS_EPSILON = tl.constexpr(MASS_EPSILON)


@triton.jit
def pool_by_channels(
    features,
    masks,
    foreground,
    background,
    share,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    """Compute the descriptors of these channels, of a planar map whose pixels all fit the window: forward."""
    # features [C,P], masks [R,P] -> foreground, background [R,C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = foreground.dtype.element_ty
    first_row, row_end, window, window_end = share
    mask = load_window(masks, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)
    complement = tl.where(window_index(window, tile) < window_end, 1 - mask, 0)
    mask /= sum_across_threads(sum_in_threads(mask, False, tile), False) + _MASS_EPSILON
    complement /= sum_across_threads(sum_in_threads(complement, False, tile), False) + _MASS_EPSILON
    number = tl.arange(0, R_PADDED)[:, None, None, None]
    target = number * tile.channels
    for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
        rows = row_index(row, tile)
        inside = (number < R) & (rows < row_end)
        values = load_tile(features, row, row_end, window, window_end, dtype, tile)
        under_mask = sum_across_threads(sum_in_threads(mask * values, False, tile), False)
        beside_mask = sum_across_threads(sum_in_threads(complement * values, False, tile), False)
        tl.store(foreground + target + rows, under_mask, mask=inside)
        tl.store(background + target + rows, beside_mask, mask=inside)


@triton.jit
def pool_by_pixels(
    features,
    masks,
    foreground,
    background,
    share,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    """Compute the descriptors of these channels, which the program holds while it walks over all pixels: forward."""
    # features [C,P], masks [R,P] -> foreground, background [R,C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = foreground.dtype.element_ty
    over_rows: tl.constexpr = not tile.planar
    row, row_end, window, window_end = share
    number = tl.arange(0, R_PADDED)[:, None, None, None]
    masks += number * tile.pixels
    if tile.planar:
        under_mask = tl.full([R_PADDED, 1, tile.rows, tile.lanes], 0, dtype)
        mass = tl.full([R_PADDED, 1, 1, tile.lanes], 0, dtype)
    else:
        under_mask = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        mass = tl.full([R_PADDED, 1, tile.thread_rows, 1], 0, dtype)
    beside_mask, complement_mass = under_mask, mass
    step: tl.constexpr = tile.window_share if tile.planar else tile.rows
    # What could be computed before the loop would wait in registers that are not there.
    for pixel in tl.range(0, tile.pixels, step, num_stages=2, disable_licm=True):
        if tile.planar:
            window, window_end = pixel, tl.minimum(pixel + step, tile.pixels)
            pixels = window_index(window, tile)
            inside = pixels < window_end
        else:
            row, row_end = pixel, tile.pixels
            pixels = row_index(row, tile)
            inside = pixels < row_end
        mask = tl.load(masks + pixels, mask=(number < R) & inside, other=0).to(dtype)
        complement = tl.where(inside, 1 - mask, 0)
        values = load_tile(features, row, row_end, window, window_end, dtype, tile)
        under_mask += sum_in_threads(mask * values, over_rows, tile)
        beside_mask += sum_in_threads(complement * values, over_rows, tile)
        mass += sum_in_threads(mask, over_rows, tile)
        complement_mass += sum_in_threads(complement, over_rows, tile)
    under_mask = sum_across_threads(under_mask, over_rows) / (sum_across_threads(mass, over_rows) + _MASS_EPSILON)
    beside_mask = sum_across_threads(beside_mask, over_rows)
    beside_mask /= sum_across_threads(complement_mass, over_rows) + _MASS_EPSILON
    if tile.planar:
        channels, channel_end = row_index(row, tile), row_end
    else:
        channels, channel_end = window_index(window, tile), window_end
    target = number * tile.channels + channels
    tl.store(foreground + target, under_mask, mask=(number < R) & (channels < channel_end))
    tl.store(background + target, beside_mask, mask=(number < R) & (channels < channel_end))


@triton.jit
def _inverse_masses(
    masks, R: tl.constexpr, R_PADDED: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr, dtype: tl.constexpr
):
    """Compute 1 / (sum_p m + eps) and 1 / (sum_p (1 - m) + eps) of every mask of a sample."""
    # masks [R,P]; mass [R, BLOCK]; the results [R,1]
    number = tl.arange(0, R_PADDED)[:, None]
    mass = tl.full([R_PADDED, BLOCK], 0, dtype)
    complement_mass = mass
    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)[None, :]
        mask = tl.load(masks + number * P + pixel, mask=(number < R) & (pixel < P), other=0).to(dtype)
        mass += mask
        complement_mass += tl.where(pixel < P, 1 - mask, 0)
    inverse = 1 / (tl.sum(mass, 1) + _MASS_EPSILON)
    complement_inverse = 1 / (tl.sum(complement_mass, 1) + _MASS_EPSILON)
    return inverse[:, None], complement_inverse[:, None]


@triton.jit
def differentiate_share(
    grad_foreground,
    grad_background,
    features,
    masks,
    foreground,
    background,
    grad_features,
    grad_masks,
    differences,
    added,
    share,
    writes_factors,
    FEATURES_NEEDED: tl.constexpr,
    MASKS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SPAN: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    """Differentiate: this share of dF, and its part of dm [R,P]; one of the shares that share channels
    `writes_factors`."""
    # grad_foreground, grad_background, foreground, background [R,C], features [C,P], masks [R,P] -> grad_features
    # [C,P], grad_masks [R,P], differences [R,C], added [C]; u, v [R, SPAN], tiles [R, vector, rows, lanes]
    dtype: tl.constexpr = foreground.dtype.element_ty
    first_row, row_end, window, window_end = share
    number = tl.arange(0, R_PADDED)[:, None, None, None]
    inverse, complement_inverse = _inverse_masses(masks, R, R_PADDED, tile.pixels, BLOCK, dtype)

    if tile.planar:
        mask = load_window(masks, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)
        sums = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        first, end = first_row, row_end
    else:
        first, end = window, window_end
    channel = first + tl.arange(0, SPAN)[None, :]
    each = tl.arange(0, R_PADDED)[:, None]
    mine = (each < R) & (channel < end)
    offset = each * tile.channels + channel
    u = tl.load(grad_foreground + offset, mask=mine, other=0).to(dtype) * inverse
    v = tl.load(grad_background + offset, mask=mine, other=0).to(dtype) * complement_inverse

    if differences is not None:
        own_end = tl.where(writes_factors, end, 0)
        tl.store(differences + offset, u - v, mask=(each < R) & (channel < own_end))
        tl.store(added + channel, tl.sum(v, 0, keep_dims=True), mask=channel < own_end)

    if FEATURES_NEEDED:
        if not tile.planar:
            u_here, v_here = pick_window(u, tile), pick_window(v, tile)
        for row in tl.range(first_row, row_end, tile.rows):
            if tile.planar:
                u_here, v_here = pick_rows(u, row - first_row, tile), pick_rows(v, row - first_row, tile)
            else:
                rows = row_index(row, tile)
                inside = (number < R) & (rows < row_end)
                mask = tl.load(masks + number * tile.pixels + rows, mask=inside, other=0).to(dtype)
            gradient = tl.sum(mask * u_here + (1 - mask) * v_here, 0, keep_dims=True)
            store_tile(grad_features, gradient, row, row_end, window, window_end, written)

    if MASKS_NEEDED:
        f = tl.load(foreground + offset, mask=mine, other=0)
        g = tl.load(background + offset, mask=mine, other=0)
        shift = tl.sum(g * v - f * u, 1)[:, None, None, None]
        difference = u - v
        if not tile.planar:
            difference_here = pick_window(difference, tile)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            if tile.planar:
                difference_here = pick_rows(difference, row - first_row, tile)
                sums += sum_in_threads(difference_here * values, True, tile)
            else:
                rows = row_index(row, tile)
                products = sum_across_threads(sum_in_threads(difference_here * values, False, tile), False) + shift
                inside = (number < R) & (rows < row_end)
                tl.store(
                    grad_masks + number * tile.pixels + rows, products.to(grad_masks.dtype.element_ty), mask=inside
                )
        if tile.planar:
            elements = window_index(window, tile)
            inside = (number < R) & (elements < window_end)
            sums = sum_across_threads(sums, True) + shift
            tl.store(grad_masks + number * tile.pixels + elements, sums.to(grad_masks.dtype.element_ty), mask=inside)
