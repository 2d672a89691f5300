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

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import MASS_EPSILON, Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.tiles import (
    STAGES,
    Tile,
    channel_share,
    load_tile,
    load_window,
    own_share,
    pick_rows,
    pick_window,
    pixel_share,
    plan_total,
    row_index,
    store_tile,
    sum_across_threads,
    sum_in_threads,
    window_index,
)

# Programs that keep a large GPU busy, and the fewest channels one of them is worth.
PROGRAMS = 512
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

_MASS_EPSILON = tl.constexpr(MASS_EPSILON)


@triton.jit(do_not_specialize=["tiles_each"])
def _masked_pool_forward_by_channels_kernel(
    features,
    masks,
    foreground,
    background,
    features_sample,
    tiles_each,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    dtype: tl.constexpr = foreground.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64)
    first_row, row_end, window, window_end = own_share(tiles_each, tile)
    features += sample * features_sample
    mask = load_window(masks + sample * (R * tile.pixels), tile.pixels, R, window, window_end, R_PADDED, dtype, tile)
    complement = tl.where(window_index(window, tile) < window_end, 1 - mask, 0)
    mask /= sum_across_threads(sum_in_threads(mask, False, tile), False) + _MASS_EPSILON
    complement /= sum_across_threads(sum_in_threads(complement, False, tile), False) + _MASS_EPSILON
    number = tl.arange(0, R_PADDED)[:, None, None, None]
    target = (sample * R + number) * tile.channels
    for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
        rows = row_index(row, tile)
        inside = (number < R) & (rows < row_end)
        values = load_tile(features, row, row_end, window, window_end, dtype, tile)
        under_mask = sum_across_threads(sum_in_threads(mask * values, False, tile), False)
        beside_mask = sum_across_threads(sum_in_threads(complement * values, False, tile), False)
        tl.store(foreground + target + rows, under_mask, mask=inside)
        tl.store(background + target + rows, beside_mask, mask=inside)


@triton.jit
def _masked_pool_forward_by_pixels_kernel(
    features,
    masks,
    foreground,
    background,
    features_sample,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    dtype: tl.constexpr = foreground.dtype.element_ty
    over_rows: tl.constexpr = not tile.planar
    sample = tl.program_id(0).to(tl.int64)
    row, row_end, window, window_end = own_share(1, tile)
    features += sample * features_sample
    number = tl.arange(0, R_PADDED)[:, None, None, None]
    masks += (sample * R + number) * tile.pixels
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
    target = (sample * R + number) * tile.channels + channels
    tl.store(foreground + target, under_mask, mask=(number < R) & (channels < channel_end))
    tl.store(background + target, beside_mask, mask=(number < R) & (channels < channel_end))


@triton.jit
def _inverse_masses(
    masks, R: tl.constexpr, R_PADDED: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr, dtype: tl.constexpr
):
    """1 / (sum_p m + eps) and 1 / (sum_p (1 - m) + eps) of every mask of a sample."""
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
    FEATURES_NEEDED: tl.constexpr,
    MASKS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    SPAN: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    dtype: tl.constexpr = foreground.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64)
    first_row, row_end, window, window_end = own_share(tiles_each, tile)
    features += sample * features_sample
    grad_features += sample * (tile.channels * tile.pixels)
    masks += sample * (R * tile.pixels)
    descriptors = sample * (R * tile.channels)
    grad_masks += (channel_share(tile) * tl.num_programs(0) + sample) * (R * tile.pixels)
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
    offset = descriptors + each * tile.channels + channel
    u = tl.load(grad_foreground + offset, mask=mine, other=0).to(dtype) * inverse
    v = tl.load(grad_background + offset, mask=mine, other=0).to(dtype) * complement_inverse

    if differences is not None:
        # One of the programs that share the pixels writes them.
        own_end = tl.where(pixel_share(tile) == 0, end, 0)
        tl.store(differences + offset, u - v, mask=(each < R) & (channel < own_end))
        added += sample * tile.channels + channel
        tl.store(added, tl.sum(v, 0, keep_dims=True), mask=channel < own_end)

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


def plan_forward(features: Tensor, masks: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    batch, channels = features.shape[:2]
    count = masks.shape[1]
    maps = features.flatten(2)
    tile = Tile.over(maps, per_thread=PER_THREAD)
    if tile.planar and tile.windows == 1:
        kernel = _masked_pool_forward_by_channels_kernel
        split = tile.split(PROGRAMS // max(1, batch), CHANNELS)
        grid = (batch, *split.grid)
    else:
        kernel = _masked_pool_forward_by_pixels_kernel
        if tile.planar:
            tile = Tile.over(maps, window=NARROW, per_thread=PER_THREAD, warps=NARROW_WARPS)
        # The program walks over all pixels: rows of one tile and all windows, or the other way round.
        split = tile.split_evenly(tile.rows) if tile.planar else tile.split()
        grid = (batch, split.channel_shares, 1) if tile.planar else (batch, 1, split.channel_shares)
    foreground, background = (
        features.new_empty((batch, count, channels), dtype=accumulation_dtype(features, masks)) for _ in range(2)
    )
    arguments: dict[str, Tensor | int] = {
        "features": maps,
        "masks": masks.contiguous(),
        "foreground": foreground,
        "background": background,
        "features_sample": maps.stride(0),
    }
    if kernel is _masked_pool_forward_by_channels_kernel:
        arguments["tiles_each"] = split.tiles_each
    constants = {"R": count, "R_PADDED": triton.next_power_of_2(count), "tile": tile}
    launch = Launch(kernel, grid, arguments, constants, num_warps=tile.warps)
    return (foreground, background), [launch]


def plan_backward(
    grad_foreground: Tensor,
    grad_background: Tensor,
    features: Tensor,
    masks: Tensor,
    foreground: Tensor,
    background: Tensor,
    features_needed: bool,
    masks_needed: bool,
) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them."""
    arguments = grad_foreground, grad_background, features, masks, foreground, background
    (grad_features, parts), launch = plan_parts(*arguments, features_needed, masks_needed)
    if not masks_needed:
        return (grad_features, masks.new_empty(0)), [launch]
    grad_masks, summing = plan_total(parts, masks.dtype)
    return (grad_features, grad_masks), [launch, *summing]


def plan_factors(
    grad_foreground: Tensor,
    grad_background: Tensor,
    features: Tensor,
    masks: Tensor,
    foreground: Tensor,
    background: Tensor,
) -> tuple[tuple[Factors, Tensor], Launch]:
    """`plan_parts` with a gradient of the features that is not written: m u + (1 - m) v = m (u - v) + v."""
    factors = Factors(
        torch.empty_like(foreground), masks.flatten(2).contiguous(), foreground.new_empty(foreground[:, 0].shape)
    )
    arguments = grad_foreground, grad_background, features, masks, foreground, background
    (_, parts), launch = plan_parts(*arguments, False, True, factors)
    return (factors, parts), launch


def plan_parts(
    grad_foreground: Tensor,
    grad_background: Tensor,
    features: Tensor,
    masks: Tensor,
    foreground: Tensor,
    background: Tensor,
    features_needed: bool,
    masks_needed: bool,
    factors: Factors | None = None,
) -> tuple[tuple[Tensor, Tensor], Launch]:
    """Allocate the features' gradient and parts [S,B,R,H,W] of that of the masks, and describe the launch that fills
    them."""
    batch = features.shape[0]
    count = masks.shape[1]
    maps = features.flatten(2)
    tile = Tile.over(maps, per_thread=PER_THREAD)
    if tile.flat:
        tile = tile.thinner(min(THIN, tile.vector))
    elif tile.planar and tile.windows > 1:
        tile = Tile.over(maps, window=WIDE, per_thread=PER_THREAD)
    split = tile.split_evenly(SPAN) if tile.planar else tile.split()
    # Channels that one program reads the descriptors of.
    span = split.tiles_each * tile.rows if tile.planar else tile.vector * tile.lanes
    grad_features = gradient_like(features) if features_needed else features.new_empty(0)
    # One part is the gradient itself.
    dtype = masks.dtype if split.channel_shares == 1 else accumulation_dtype(features, masks)
    parts = masks.new_empty((split.channel_shares if masks_needed else 0, *masks.shape), dtype=dtype)
    launch = Launch(
        _masked_pool_backward_kernel,
        (batch, *split.grid),
        {
            "grad_foreground": grad_foreground.contiguous(),
            "grad_background": grad_background.contiguous(),
            "features": maps,
            "masks": masks.contiguous(),
            "foreground": foreground.contiguous(),
            "background": background.contiguous(),
            "grad_features": grad_features,
            "grad_masks": parts,
            "differences": None if factors is None else factors.per_channel,
            "added": None if factors is None else factors.added,
            "features_sample": maps.stride(0),
            "tiles_each": split.tiles_each,
        },
        {
            "FEATURES_NEEDED": features_needed,
            "MASKS_NEEDED": masks_needed,
            "R": count,
            "R_PADDED": triton.next_power_of_2(count),
            "BLOCK": min(1024, triton.next_power_of_2(tile.pixels)),
            "SPAN": span,
            "tile": tile,
            "written": tile.onto(grad_features.flatten(2)) if features_needed else tile,
        },
        num_warps=tile.warps,
    )
    return (grad_features, parts), launch


forward = launched(plan_forward)
backward = launched(plan_backward)
