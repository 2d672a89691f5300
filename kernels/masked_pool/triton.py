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

from iir_fast.kernels.contract import Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.masked_pool.reference import BackwardInputs
from iir_fast.kernels.masked_pool.share import differentiate_share, pool_by_channels, pool_by_pixels
from iir_fast.kernels.sums import plan_total
from iir_fast.kernels.tiles import Tile, channel_share, own_share, pixel_share

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
    # features [B,C,P], masks [B,R,P] -> foreground, background [B,R,C]
    sample = tl.program_id(0).to(tl.int64)
    features += sample * features_sample
    masks += sample * (R * tile.pixels)
    foreground += sample * (R * tile.channels)
    background += sample * (R * tile.channels)
    share = own_share(tiles_each, tile)
    pool_by_channels(features, masks, foreground, background, share, R, R_PADDED, tile)


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
    # features [B,C,P], masks [B,R,P] -> foreground, background [B,R,C]
    sample = tl.program_id(0).to(tl.int64)
    features += sample * features_sample
    masks += sample * (R * tile.pixels)
    foreground += sample * (R * tile.channels)
    background += sample * (R * tile.channels)
    pool_by_pixels(features, masks, foreground, background, own_share(1, tile), R, R_PADDED, tile)


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
    # grad_foreground, grad_background, foreground, background [B,R,C], features [B,C,P], masks [B,R,P]
    # -> grad_features [B,C,P], grad_masks [S,B,R,P], differences [B,R,C], added [B,C]
    sample = tl.program_id(0).to(tl.int64)
    features += sample * features_sample
    grad_features += sample * (tile.channels * tile.pixels)
    masks += sample * (R * tile.pixels)
    grad_foreground += sample * (R * tile.channels)
    grad_background += sample * (R * tile.channels)
    foreground += sample * (R * tile.channels)
    background += sample * (R * tile.channels)
    grad_masks += (channel_share(tile) * tl.num_programs(0) + sample) * (R * tile.pixels)
    if differences is not None:
        differences += sample * (R * tile.channels)
        added += sample * tile.channels
    differentiate_share(
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
        own_share(tiles_each, tile),
        pixel_share(tile) == 0,
        FEATURES_NEEDED,
        MASKS_NEEDED,
        R,
        R_PADDED,
        BLOCK,
        SPAN,
        tile,
        written,
    )


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
            "grad_features": grad_features,
            "grad_masks": parts,
            "differences": None if factors is None else factors.per_channel,
            "added": None if factors is None else factors.added,
            "features_sample": maps.stride(0),
            "tiles_each": split.tiles_each,
        },
        {
            "FEATURES_NEEDED": given.features_needed,
            "MASKS_NEEDED": given.masks_needed,
            "R": count,
            "R_PADDED": triton.next_power_of_2(count),
            "BLOCK": min(1024, triton.next_power_of_2(tile.pixels)),
            "SPAN": span,
            "tile": tile,
            "written": tile.onto(grad_features.flatten(2)) if given.features_needed else tile,
        },
        num_warps=tile.warps,
    )
    return (grad_features, parts), launch


forward = launched(plan_forward)
backward = launched(plan_backward)
