"""masked_pool on Triton: one read of the features forward, one read and one write backward, for all masks.

How a program walks over its share of a sample, and what a tile is: `kernels/tiles.py`.

    forward    Planar maps that fit a window: the program holds all masks of its sample, walks over channels and
               finishes a few of them with each tile. All others: the program holds some channels, walks over the
               pixels with the masks beside it, and finishes at the end. The complement 1 - m is summed on its own.
    backward   The program reads all masks of its sample for their masses and holds what it needs of the descriptors'
               gradients. It walks over its share to write dF from these and the masks alone, and again to sum F into
               dm. Where several programs share the sum over channels each writes a part, and a second launch adds
               the parts. In place of dF it writes u - v and the sum of v, for who writes dF with more in it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import MASS_EPSILON, Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.masked_pool.reference import BackwardInputs
from iir_fast.kernels.sums import plan_total
from iir_fast.kernels.tiles import (
    PROGRAMS,
    STAGES,
    Tile,
    channel_share,
    load_rows,
    load_tile,
    load_window,
    own_share,
    pick_rows,
    pick_window,
    pixel_share,
    row_index,
    store_rows,
    store_tile,
    store_window,
    sum_across_threads,
    sum_in_threads,
    window_index,
)

# The fewest channels that a program is worth.
CHANNELS = 128
# A narrow window of a large planar map, so that a program can hold many channels and read few masks.
NARROW = 32
# Elements of a tile that each thread holds: few, because every region of every mask multiplies them.
PER_THREAD = 8
NARROW_WARPS = 16
# Backward: a wide window of a large planar map reads the descriptors less often; of a flat tile, the elements of a
# window that stay within one thread; and the channels that one program writes the gradients of.
WIDE = 512
THIN = 4
SPAN = 256

# Pixels whose masks are summed at a time.
_PIXELS = tl.constexpr(1024)
_MASS_EPSILON = tl.constexpr(MASS_EPSILON)


@triton.jit
def pool_share(features, masks, foreground, background, share, R: tl.constexpr, tile: tl.constexpr):
    """Compute the descriptors of this share's channels, all pointers being at the sample: forward."""
    if tile.planar & (tile.pixels <= tile.vector * tile.lanes):
        _pool_by_channels(features, masks, foreground, background, share, R, tile)
    else:
        _pool_by_pixels(features, masks, foreground, background, share, R, tile)


@triton.jit
def _pool_by_channels(features, masks, foreground, background, share, R: tl.constexpr, tile: tl.constexpr):
    """Pool a planar map whose pixels all fit the window."""
    # features [C,P], masks [R,P] -> foreground, background [R,C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = foreground.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    first_row, row_end, window, window_end = share
    mask = load_window(masks, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)
    complement = tl.where(window_index(window, tile) < window_end, 1 - mask, 0)
    mask /= sum_across_threads(sum_in_threads(mask, False, tile), False) + _MASS_EPSILON
    complement /= sum_across_threads(sum_in_threads(complement, False, tile), False) + _MASS_EPSILON
    for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
        values = load_tile(features, row, row_end, window, window_end, dtype, tile)
        under_mask = sum_across_threads(sum_in_threads(mask * values, False, tile), False)
        beside_mask = sum_across_threads(sum_in_threads(complement * values, False, tile), False)
        store_rows(foreground, under_mask, tile.channels, R, row, row_end, tile)
        store_rows(background, beside_mask, tile.channels, R, row, row_end, tile)


@triton.jit
def _pool_by_pixels(features, masks, foreground, background, share, R: tl.constexpr, tile: tl.constexpr):
    """Pool any map: the program holds its channels while it walks over all pixels."""
    # features [C,P], masks [R,P] -> foreground, background [R,C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = foreground.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
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
        else:
            row, row_end = pixel, tile.pixels
            pixels = row_index(row, tile)
        inside = pixels < (window_end if tile.planar else row_end)
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
def _inverse_masses(masks, R: tl.constexpr, P: tl.constexpr, dtype: tl.constexpr):
    """Compute 1 / (sum_p m + eps) and 1 / (sum_p (1 - m) + eps) of every mask of a sample."""
    # masks [R,P]; mass [R, BLOCK]; the results [R,1]
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    BLOCK: tl.constexpr = triton.next_power_of_2(P if P < _PIXELS else _PIXELS)
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
    gradients,
    features,
    masks,
    descriptors,
    grad_features,
    grad_masks,
    differences,
    added,
    share,
    writes_factors,
    R: tl.constexpr,
    SPAN: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    """Differentiate: this share of dF, and its part of dm [R,P]; one of the shares that share channels
    `writes_factors`."""
    # gradients and descriptors 2 x [R,C], features [C,P], masks [R,P] -> grad_features [C,P], grad_masks [R,P],
    # differences [R,C], added [C]; u, v [R, SPAN], tiles [R, vector, rows, lanes]
    grad_foreground, grad_background = gradients
    foreground, background = descriptors
    dtype: tl.constexpr = foreground.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    first_row, row_end, window, window_end = share
    inverse, complement_inverse = _inverse_masses(masks, R, tile.pixels, dtype)

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

    if grad_features is not None:
        if not tile.planar:
            u_here, v_here = pick_window(u, tile), pick_window(v, tile)
        for row in tl.range(first_row, row_end, tile.rows):
            if tile.planar:
                u_here, v_here = pick_rows(u, row - first_row, tile), pick_rows(v, row - first_row, tile)
            else:
                mask = load_rows(masks, tile.pixels, R, row, row_end, R_PADDED, dtype, tile)
            gradient = tl.sum(mask * u_here + (1 - mask) * v_here, 0, keep_dims=True)
            store_tile(grad_features, gradient, row, row_end, window, window_end, written)

    if grad_masks is not None:
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
                products = sum_across_threads(sum_in_threads(difference_here * values, False, tile), False) + shift
                store_rows(grad_masks, products, tile.pixels, R, row, row_end, tile)
        if tile.planar:
            sums = sum_across_threads(sums, True) + shift
            store_window(grad_masks, sums, tile.pixels, R, window, window_end, tile)


@triton.jit(do_not_specialize=["tiles_each"])
def _masked_pool_forward_kernel(
    features, masks, foreground, background, features_sample, tiles_each, R: tl.constexpr, tile: tl.constexpr
):
    # features [B,C,P], masks [B,R,P] -> foreground, background [B,R,C]
    sample = tl.program_id(0).to(tl.int64)
    features += sample * features_sample
    masks += sample * (R * tile.pixels)
    foreground += sample * (R * tile.channels)
    background += sample * (R * tile.channels)
    share = own_share(1 if tiles_each is None else tiles_each, tile)
    pool_share(features, masks, foreground, background, share, R, tile)


@triton.jit(do_not_specialize=["tiles_each"])
def _masked_pool_backward_kernel(
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
    features_sample,
    tiles_each,
    R: tl.constexpr,
    SPAN: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    # grad_foreground, grad_background, foreground, background [B,R,C], features [B,C,P], masks [B,R,P]
    # -> grad_features [B,C,P], grad_masks [S,B,R,P], differences [B,R,C], added [B,C]
    sample = tl.program_id(0).to(tl.int64)
    features += sample * features_sample
    masks += sample * (R * tile.pixels)
    of_descriptors = sample * (R * tile.channels)
    if grad_features is not None:
        grad_features += sample * (tile.channels * tile.pixels)
    if grad_masks is not None:
        grad_masks += (channel_share(tile) * tl.num_programs(0) + sample) * (R * tile.pixels)
    if differences is not None:
        differences += of_descriptors
        added += sample * tile.channels
    differentiate_share(
        (grad_foreground + of_descriptors, grad_background + of_descriptors),
        features,
        masks,
        (foreground + of_descriptors, background + of_descriptors),
        grad_features,
        grad_masks,
        differences,
        added,
        own_share(tiles_each, tile),
        pixel_share(tile) == 0,
        R,
        SPAN,
        tile,
        written,
    )


def plan_forward(features: Tensor, masks: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    (batch, channels), count, maps = features.shape[:2], masks.shape[1], features.flatten(2)
    tile, tiles_each = Tile.over(maps, per_thread=PER_THREAD), None
    if tile.planar and tile.windows == 1:
        split = tile.split(PROGRAMS // max(1, batch), CHANNELS)
        grid, tiles_each = (batch, *split.grid), split.tiles_each
    elif tile.planar:
        # The program walks over all pixels, here window by window: its share is of channels alone.
        tile = Tile.over(maps, window=NARROW, per_thread=PER_THREAD, warps=NARROW_WARPS)
        grid = (batch, tile.split_evenly(tile.rows).channel_shares, 1)
    else:
        grid = (batch, 1, tile.windows)
    foreground, background = (
        features.new_empty((batch, count, channels), dtype=accumulation_dtype(features, masks)) for _ in range(2)
    )
    launch = Launch(
        _masked_pool_forward_kernel,
        grid,
        {
            "features": maps,
            "masks": masks.contiguous(),
            "foreground": foreground,
            "background": background,
            "features_sample": maps.stride(0),
            "tiles_each": tiles_each,
        },
        {"R": count, "tile": tile},
        num_warps=tile.warps,
    )
    return (foreground, background), [launch]


def plan_backward(*arguments: Any) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them."""
    given = BackwardInputs(*arguments)
    (grad_features, parts), launch = plan_parts(given)
    if not given.masks_needed:
        return (grad_features, given.masks.new_empty(0)), [launch]
    grad_masks, summing = plan_total(parts, given.masks.dtype)
    return (grad_features, grad_masks), [launch, *summing]


def plan_factors(given: BackwardInputs) -> tuple[tuple[Factors, Tensor], Launch]:
    """Plan `plan_parts` with a gradient of the features that is not written: m u + (1 - m) v = m (u - v) + v."""
    foreground = given.foreground
    added = foreground.new_empty(foreground[:, 0].shape)
    factors = Factors(torch.empty_like(foreground), given.masks.flatten(2).contiguous(), added)
    (_, parts), launch = plan_parts(given._replace(features_needed=False), factors)
    return (factors, parts), launch


def plan_parts(given: BackwardInputs, factors: Factors | None = None) -> tuple[tuple[Tensor, Tensor], Launch]:
    """Allocate the features' gradient and parts [S,B,R,H,W] of that of the masks, and describe the launch that fills
    them."""
    features, masks = given.features, given.masks
    batch, count, maps = len(features), masks.shape[1], features.flatten(2)
    tile = Tile.over(maps, per_thread=PER_THREAD)
    if tile.flat:
        tile = tile.thinner(min(THIN, tile.vector))
    elif tile.planar and tile.windows > 1:
        tile = Tile.over(maps, window=WIDE, per_thread=PER_THREAD)
    split = tile.split_evenly(SPAN) if tile.planar else tile.split()
    # Channels that one program reads the descriptors of.
    span = split.tiles_each * tile.rows if tile.planar else tile.vector * tile.lanes
    grad_features = gradient_like(features) if given.features_needed else features.new_empty(0)
    # One part is the gradient itself.
    dtype = masks.dtype if split.channel_shares == 1 else accumulation_dtype(features, masks)
    parts = masks.new_empty((split.channel_shares if given.masks_needed else 0, *masks.shape), dtype=dtype)
    launch = Launch(
        _masked_pool_backward_kernel,
        (batch, *split.grid),
        {
            "grad_foreground": given.grad_foreground.contiguous(),
            "grad_background": given.grad_background.contiguous(),
            "features": maps,
            "masks": masks.contiguous(),
            "foreground": given.foreground.contiguous(),
            "background": given.background.contiguous(),
            "grad_features": grad_features if given.features_needed else None,
            "grad_masks": parts if given.masks_needed else None,
            "differences": None if factors is None else factors.per_channel,
            "added": None if factors is None else factors.added,
            "features_sample": maps.stride(0),
            "tiles_each": split.tiles_each,
        },
        {
            "R": count,
            "SPAN": span,
            "tile": tile,
            "written": tile.onto(grad_features.flatten(2)) if given.features_needed else tile,
        },
        num_warps=tile.warps,
    )
    return (grad_features, parts), launch


forward = launched(plan_forward)
backward = launched(plan_backward)
