"""When a program of dual_cam takes a whole sample, and what is launched then: one kernel each way.

F is read twice each way as by single launches, but the second time soon after the first: what `LARGEST` bytes are to
128 programs still lies in the L2 cache of a large GPU, so memory sees F once each way. The logits, which need the whole
batch, come before or after. A larger map has more programs to a sample, and a launch for each step.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype, gradient_like
from iir_fast.kernels.dual_cam.products import or_zeros
from iir_fast.kernels.dual_cam.reference import Gradients, Inputs, Saved
from iir_fast.kernels.dual_cam.sample import dual_cam_backward_kernel, dual_cam_forward_kernel
from iir_fast.kernels.label_cam.reference import Maps
from iir_fast.kernels.launch import Launch
from iir_fast.kernels.masked_pool.triton import SPAN, THIN
from iir_fast.kernels.regulate import TEMPERATURE, gradient_of_cuts
from iir_fast.kernels.regulate.triton import MAX_HELD
from iir_fast.kernels.tiles import Tile

# Where a loop's bounds are known to it, as they are here, Triton 3.5 copies two bytes at a time, and refuses to.
COMPILES = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6)
# Bytes of a sample's map: 128 of them take 48 MiB.
LARGEST = 384 * 1024
# With up to 128 registers to a thread they fill a multiprocessor, which then works on one sample.
WARPS = 16
# Of elements of four bytes and more: with more of them some variants spill.
FEW_WARPS = 4
# Elements of a tile that each thread holds, where one or two products meet them and where four do.
PER_THREAD = 16
FEW_PER_THREAD = 8


def is_small(inputs: Inputs) -> bool:
    """Tell whether a program takes a whole sample: all of its F is near, and a tile spans its pixels."""
    return COMPILES and all(_is_small(each) for each in (inputs.features, *inputs.maps))


def _is_small(features: Tensor) -> bool:
    channels, height, width = features.shape[1:]
    pixels = height * width
    tile = Tile.over(features.flatten(2))
    held = pixels <= MAX_HELD and not (tile.planar and tile.windows > 1)
    return held and channels * pixels * features.element_size() <= LARGEST


def _warps(inputs: Inputs) -> int:
    return WARPS if inputs.features.element_size() == 2 else FEW_WARPS


def plan_forward(inputs: Inputs) -> tuple[tuple[Tensor, ...], Launch]:
    """Allocate pooled maps, offsets, CAMs, terms, masks, normalized maps, thresholds and both descriptors, and describe
    the launch that fills them."""
    maps, features = Maps.of(inputs.maps), inputs.features.flatten(2)
    count, batch, (height, width), warps = len(inputs.maps), len(features), inputs.features.shape[2:], _warps(inputs)
    read = Tile.over(maps.first, per_thread=PER_THREAD if warps == WARPS else FEW_PER_THREAD, warps=warps)
    pool = Tile.over(features, per_thread=FEW_PER_THREAD, warps=warps)
    read_split, pool_split = read.split(), pool.split()
    like = features.new_empty(0, dtype=accumulation_dtype(maps.first, inputs.weights))
    parts = like.new_empty((read_split.channel_shares, batch, 2, height, width))
    written = None if len(parts) == 1 else like.new_empty(parts.shape[1:])
    pooled = like.new_empty((count, batch, read.channels))
    learned = inputs.offset_weights is not None
    offsets = like.new_empty((batch, 2) if learned else 0)
    terms, cuts = like.new_empty(batch, 2), like.new_empty(batch, 2)
    masks, normalized = (like.new_empty(batch, 2, height, width) for _ in range(2))
    dtype = accumulation_dtype(features, like)
    foreground, background = (like.new_empty((batch, 2, pool.channels), dtype=dtype) for _ in range(2))
    launch = Launch(
        dual_cam_forward_kernel,
        (batch,),
        {
            "features": features,
            "first": maps.first,
            "second": maps.second,
            "weights": inputs.weights.contiguous(),
            "labels": inputs.labels.contiguous(),
            "given": None if inputs.thresholds is None else inputs.thresholds.contiguous(),
            "offset_weights": None if inputs.offset_weights is None else inputs.offset_weights.contiguous(),
            "offset_biases": None if inputs.offset_biases is None else inputs.offset_biases.contiguous(),
            "parts": parts,
            "pooled": pooled,
            "offsets": offsets if learned else None,
            "cams": written,
            "terms": terms,
            "masks": masks,
            "maps": normalized,
            "thresholds": cuts,
            "foreground": foreground,
            "background": background,
            "temperature": TEMPERATURE,
            "features_sample": features.stride(0),
            "first_sample": maps.first.stride(0),
            "classes": inputs.weights.shape[1],
        },
        {
            "MAPS": count,
            "BLOCK": triton.next_power_of_2(read.pixels),
            "read": read,
            "read_split": read_split,
            "pool": pool,
            "pool_split": pool_split,
        },
        num_warps=warps,
    )
    cams = parts[0] if written is None else written
    return (pooled, offsets, cams, terms, masks, normalized, cuts, foreground, background), launch


class Found(NamedTuple):
    """What the backward launch fills."""

    features: Tensor
    """[B,C,H,W]: of the shared map, or of the map that is pooled only; empty if not needed."""
    maps: list[Tensor]
    """Of the classifiers' own; empty if not needed."""
    per_sample: Tensor
    """[B,1,2,C] of the weights; B is 0 if not needed."""
    cuts: Tensor | None
    """[B,2] of given thresholds or of offsets, if there are any."""


def plan_backward(
    given: Gradients,
    grad_pooled: Tensor,
    inputs: Inputs,
    saved: Saved,
    features_needed: bool,
    maps_needed: bool,
    weights_needed: bool,
) -> tuple[Found, Launch]:
    """Allocate gradients and describe the launch that fills them; `given` holds neither CAMs nor masks."""
    maps, features = Maps.of(inputs.maps), inputs.features.flatten(2)
    count, batch, shared, warps = len(inputs.maps), len(features), len(inputs.maps) == 1, _warps(inputs)
    pool = Tile.over(features, per_thread=FEW_PER_THREAD, warps=warps)
    pool = pool.thinner(min(THIN, pool.vector)) if pool.flat else pool
    read = Tile.over(maps.first, per_thread=FEW_PER_THREAD if shared else PER_THREAD, warps=warps)
    read = read.thinner(min(THIN, read.vector)) if shared and read.flat else read
    pool_split, read_split = pool.split_evenly(SPAN) if pool.planar else pool.split(), read.split()
    like = saved.masks
    offsets, cuts = None if inputs.offset_weights is None else saved.offsets, None
    if inputs.thresholds is not None or offsets is not None:
        cuts = gradient_of_cuts(like, offsets if inputs.thresholds is None else inputs.thresholds)
    per_pixel, per_channel = 2 * pool.pixels * (1 + pool_split.channel_shares), 3 * pool.channels if shared else 0
    scratch = like.new_empty((batch, per_pixel + per_channel), dtype=accumulation_dtype(inputs.features, saved.masks))
    nothing = features.new_empty(0)
    grad_features = nothing if shared or not features_needed else gradient_like(inputs.features)
    needed = features_needed if shared else maps_needed
    of_maps = [nothing] * count
    if needed:
        of_maps = [gradient_like(maps.first.unflatten(2, each.shape[2:])) for each in inputs.maps]
    per_sample = like.new_empty((batch if weights_needed else 0, 1, 2, read.channels), dtype=saved.pooled.dtype)
    flat_maps = None if given.maps is None else given.maps.flatten(2)
    grad_terms = like.new_zeros(batch, 2) if given.terms is None else given.terms
    launch = Launch(
        dual_cam_backward_kernel,
        (batch,),
        {
            "grad_terms": grad_terms.contiguous(),
            "grad_maps": flat_maps,
            "grad_thresholds": None if given.thresholds is None else given.thresholds.contiguous(),
            "grad_foreground": or_zeros(given.foreground, saved.foreground).contiguous(),
            "grad_background": or_zeros(given.background, saved.background).contiguous(),
            "grad_pooled": grad_pooled.contiguous(),
            "features": features,
            "first": maps.first,
            "second": maps.second,
            "weights": inputs.weights.contiguous(),
            "labels": inputs.labels.contiguous(),
            "given": None if inputs.thresholds is None else inputs.thresholds.contiguous(),
            "offset_weights": None if inputs.offset_weights is None else inputs.offset_weights.contiguous(),
            "offsets": offsets,
            "cams": saved.cams.contiguous(),
            "masks": saved.masks.contiguous(),
            "foreground": saved.foreground.contiguous(),
            "background": saved.background.contiguous(),
            "scratch": scratch,
            "grad_cuts": cuts,
            "grad_features": grad_features if features_needed and not shared else None,
            "grad_first": of_maps[0] if needed else None,
            "grad_second": of_maps[1] if needed and not shared else None,
            "per_sample": per_sample,
            "temperature": TEMPERATURE,
            "features_sample": features.stride(0),
            "first_sample": maps.first.stride(0),
            "maps_sample": 0 if flat_maps is None else flat_maps.stride(0),
            "maps_map": 0 if flat_maps is None else flat_maps.stride(1),
            "maps_pixel": 0 if flat_maps is None else flat_maps.stride(2),
            "classes": inputs.weights.shape[1],
        },
        {
            "WEIGHTS_NEEDED": weights_needed,
            "MAPS": count,
            "BLOCK": triton.next_power_of_2(read.pixels),
            "SCRATCH": scratch.shape[1],
            "SPAN": pool_split.tiles_each * pool.rows if pool.planar else pool.vector * pool.lanes,
            "pool": pool,
            "pool_split": pool_split,
            "pool_written": pool.onto(grad_features.flatten(2)) if grad_features.dim() == 4 else pool,
            "read": read,
            "read_split": read_split,
            "read_written": read.onto(of_maps[0].flatten(2)) if needed else read,
        },
        num_warps=warps,
    )
    return Found(of_maps[0] if shared else grad_features, of_maps, per_sample, cuts), launch
