"""dual_cam on Triton with a whole sample to a program: one kernel each way.

A program walks over its sample as the programs of the single rooms do together, share by share, and takes one step
after the other: what one step writes, the next one reads behind a barrier. F is read twice each way as by single
launches, but the second time soon after the first, out of the L2 cache. The logits, which need the whole batch, come
before or after.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype, gradient_like
from iir_fast.kernels.dual_cam.native import or_zeros
from iir_fast.kernels.dual_cam.reference import Found, Gradients, Inputs, Saved
from iir_fast.kernels.label_cam.reference import Maps
from iir_fast.kernels.label_cam.triton import differentiate_share as differentiate_cams
from iir_fast.kernels.label_cam.triton import sum_share
from iir_fast.kernels.launch import Argument, Launch
from iir_fast.kernels.masked_pool.triton import SPAN, THIN, pool_share
from iir_fast.kernels.masked_pool.triton import differentiate_share as differentiate_pool
from iir_fast.kernels.regulate import TEMPERATURE, gradient_of_cuts
from iir_fast.kernels.regulate.triton import regulate_backward_kernel, regulate_forward_kernel
from iir_fast.kernels.tiles import Tile, share_at

# With up to 128 registers to a thread they fill a multiprocessor, which then works on one sample.
WARPS = 16
# Of elements of four bytes and more: with more of them some variants spill.
FEW_WARPS = 4
# Elements of a tile that each thread holds, where one or two products meet them and where four do.
PER_THREAD, FEW_PER_THREAD = 16, 8


@triton.jit(do_not_specialize=["classes"], do_not_specialize_on_alignment=["labels"])
def dual_cam_forward_kernel(
    features,
    first,
    second,
    weights,
    labels,
    given,
    offset_weights,
    offset_biases,
    parts,
    pooled,
    offsets,
    cams,
    terms,
    masks,
    maps,
    thresholds,
    foreground,
    background,
    temperature: tl.float64,
    features_sample,
    first_sample,
    classes,
    MAPS: tl.constexpr,
    read: tl.constexpr,
    read_split: tl.constexpr,
    pool: tl.constexpr,
    pool_split: tl.constexpr,
):
    # features [B,C,P] is pooled, first, second [B,D,P] are read: D = C of a shared map; weights [2,K,D], labels [B],
    # given [B,2], offset_weights [2,D], offset_biases [2] -> parts [S,B,2,P], pooled [MAPS,B,D], cams, masks, maps
    # [B,2,P], offsets, terms, thresholds [B,2], foreground, background [B,2,C]
    sample = tl.program_id(0).to(tl.int64)
    batch = tl.num_programs(0).to(tl.int64)
    READERS: tl.constexpr = 2 // MAPS
    C: tl.constexpr = read.channels
    P: tl.constexpr = read.pixels
    BLOCK: tl.constexpr = triton.next_power_of_2(P)
    label = tl.load(labels + sample)
    sample_parts, sample_pooled = parts + sample * 2 * P, pooled + sample * C
    for which in tl.static_range(MAPS):
        own_map = (first if which == 0 else second) + sample * first_sample
        own_weights = weights + which * (classes.to(tl.int64) * C)
        for window in tl.range(0, read_split.window_shares, disable_licm=True):
            share = share_at(0, window, read_split.tiles_each, read)
            own_cams = sample_parts + window * batch * 2 * P + which * P
            own_pooled = sample_pooled + which * batch * C
            sum_share(own_map, own_weights, label, own_cams, own_pooled, classes, share, READERS, read)
    tl.debug_barrier()
    regulate_forward_kernel(
        parts,
        parts + P,
        given,
        offsets,
        pooled,
        offset_weights,
        offset_biases,
        cams,
        terms,
        masks,
        maps,
        thresholds,
        temperature,
        a_sample=2 * P,
        a_pixel=1,
        b_sample=2 * P,
        b_pixel=1,
        parts=read_split.window_shares,
        part_stride=batch * 2 * P,
        pooled_map=(MAPS - 1) * batch * C,
        P=P,
        BLOCK=BLOCK,
        C=C,
    )
    tl.debug_barrier()
    features += sample * features_sample
    masks += sample * 2 * P
    foreground += sample * 2 * pool.channels
    background += sample * 2 * pool.channels
    for window in tl.range(0, pool_split.window_shares, disable_licm=True):
        share = share_at(0, window, pool_split.tiles_each, pool)
        pool_share(features, masks, foreground, background, share, 2, pool)


@triton.jit(do_not_specialize=["classes"], do_not_specialize_on_alignment=["labels"])
def dual_cam_backward_kernel(
    grad_terms,
    grad_maps,
    grad_thresholds,
    grad_foreground,
    grad_background,
    grad_pooled,
    features,
    first,
    second,
    weights,
    labels,
    given,
    offset_weights,
    offsets,
    cams,
    masks,
    foreground,
    background,
    scratch,
    grad_cuts,
    grad_features,
    grad_first,
    grad_second,
    per_sample,
    temperature: tl.float64,
    features_sample,
    first_sample,
    maps_sample,
    maps_map,
    maps_pixel,
    classes,
    WEIGHTS_NEEDED: tl.constexpr,
    MAPS: tl.constexpr,
    SPAN: tl.constexpr,
    SCRATCH: tl.constexpr,
    pool: tl.constexpr,
    pool_split: tl.constexpr,
    pool_written: tl.constexpr,
    read: tl.constexpr,
    read_split: tl.constexpr,
    read_written: tl.constexpr,
):
    # grad_terms, grad_thresholds, given, offsets [B,2], grad_maps, cams, masks [B,2,P], foreground, background and
    # their gradients [B,2,C], grad_pooled [MAPS,B,D], features [B,C,P], first, second [B,D,P], weights [2,K,D],
    # labels [B], offset_weights [2,D], scratch [B,SCRATCH] -> grad_cuts [B,2], grad_features [B,C,P], grad_first,
    # grad_second [B,D,P], per_sample [B,1,2,D]
    sample = tl.program_id(0).to(tl.int64)
    batch = tl.num_programs(0).to(tl.int64)
    READERS: tl.constexpr = 2 // MAPS
    # Of a map that both read, what pooling adds to the gradient is written with the rest.
    TOGETHER: tl.constexpr = 2 if MAPS == 1 else 0
    C: tl.constexpr = read.channels
    P: tl.constexpr = read.pixels
    BLOCK: tl.constexpr = triton.next_power_of_2(P)
    masks += sample * 2 * P
    # Of a sample: the gradient of its CAMs, parts of that of its masks, and what pooling adds to that of F.
    PARTS: tl.constexpr = pool_split.row_shares if pool.planar else pool_split.window_shares
    grad_cams = scratch + sample * SCRATCH
    parts = grad_cams + 2 * P
    differences, added = None, None
    if MAPS == 1:
        differences = parts + PARTS * 2 * P
        added = differences + 2 * C
    if grad_features is not None:
        grad_features += sample * (pool.channels * P)
    for row in tl.range(0, pool_split.row_shares, disable_licm=True):
        for window in tl.range(0, pool_split.window_shares, disable_licm=True):
            differentiate_pool(
                (grad_foreground + sample * 2 * pool.channels, grad_background + sample * 2 * pool.channels),
                features + sample * features_sample,
                masks,
                (foreground + sample * 2 * pool.channels, background + sample * 2 * pool.channels),
                grad_features,
                parts + (row if pool.planar else window) * (2 * P),
                differences,
                added,
                share_at(row, window, pool_split.tiles_each, pool),
                True,
                2,
                SPAN,
                pool,
                pool_written,
            )
    tl.debug_barrier()
    regulate_backward_kernel(
        grad_terms,
        parts,
        grad_maps,
        grad_thresholds,
        cams,
        cams + P,
        given,
        offsets,
        grad_cams,
        grad_cams + P,
        grad_cuts,
        temperature,
        grad_sample=0,
        masks_sample=0,
        masks_map=P,
        masks_pixel=1,
        maps_sample=maps_sample,
        maps_map=maps_map,
        maps_pixel=maps_pixel,
        a_sample=2 * P,
        a_pixel=1,
        b_sample=2 * P,
        b_pixel=1,
        parts=PARTS,
        part_stride=2 * P,
        P=P,
        BLOCK=BLOCK,
    )
    tl.debug_barrier()
    label = tl.load(labels + sample)
    for which in tl.static_range(MAPS):
        own_map = (first if which == 0 else second) + sample * first_sample
        target = grad_first if which == 0 else grad_second
        if target is not None:
            target += sample * (C * P)
        own_cuts, own_offsets = None, None
        if offset_weights is not None:
            own_cuts, own_offsets = grad_cuts + 2 * sample + which, offset_weights + which * C
        own_pooled = grad_pooled + (which * batch + sample) * C
        incoming = grad_cams + which * P, own_pooled, batch * C, differences, masks, added, own_cuts, own_offsets
        for window in tl.range(0, read_split.window_shares, disable_licm=True):
            differentiate_cams(
                incoming,
                own_map,
                weights + which * (classes.to(tl.int64) * C),
                label,
                target,
                per_sample + (sample * 2 + which) * C,
                classes,
                share_at(0, window, read_split.tiles_each, read),
                WEIGHTS_NEEDED,
                READERS,
                READERS,
                TOGETHER,
                read,
                read_written,
            )


def _arguments(inputs: Inputs, features: Tensor, maps: Maps) -> dict[str, Argument]:
    """Return what both kernels are given."""
    given, offset_weights = inputs.thresholds, inputs.offset_weights
    return {
        "features": features,
        "first": maps.first,
        "second": maps.second,
        "weights": inputs.weights.contiguous(),
        "labels": inputs.labels.contiguous(),
        "given": None if given is None else given.contiguous(),
        "offset_weights": None if offset_weights is None else offset_weights.contiguous(),
        "temperature": TEMPERATURE,
        "features_sample": features.stride(0),
        "first_sample": maps.first.stride(0),
        "classes": inputs.weights.shape[1],
    }


def plan_forward(inputs: Inputs) -> tuple[tuple[Tensor, ...], Launch]:
    """Allocate pooled maps, offsets, CAMs, terms, masks, normalized maps, thresholds and both descriptors, and describe
    the launch that fills them."""
    maps, features = Maps.of(inputs.maps), inputs.features.flatten(2)
    count, batch, (height, width) = len(inputs.maps), len(features), inputs.features.shape[2:]
    warps = WARPS if features.element_size() == 2 else FEW_WARPS
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
            **_arguments(inputs, features, maps),
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
        },
        {
            "MAPS": count,
            "read": read,
            "read_split": read_split,
            "pool": pool,
            "pool_split": pool_split,
        },
        num_warps=warps,
    )
    cams = parts[0] if written is None else written
    return (pooled, offsets, cams, terms, masks, normalized, cuts, foreground, background), launch


def plan_backward(
    given: Gradients, grad_pooled: Tensor, inputs: Inputs, saved: Saved, needed: tuple[bool, bool, bool]
) -> tuple[Found, Launch]:
    """Allocate gradients and describe the launch that fills them; `given` holds neither CAMs nor masks."""
    maps, features = Maps.of(inputs.maps), inputs.features.flatten(2)
    count, batch, shared = len(inputs.maps), len(features), len(inputs.maps) == 1
    warps = WARPS if features.element_size() == 2 else FEW_WARPS
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
    features_needed, maps_needed, weights_needed = needed
    reads, nothing = features_needed if shared else maps_needed, features.new_empty(0)
    grad_features = gradient_like(inputs.features) if features_needed and not shared else nothing
    of_maps = [gradient_like(maps.first.unflatten(2, each.shape[2:])) if reads else nothing for each in inputs.maps]
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
            **_arguments(inputs, features, maps),
            "offsets": offsets,
            "cams": saved.cams.contiguous(),
            "masks": saved.masks.contiguous(),
            "foreground": saved.foreground.contiguous(),
            "background": saved.background.contiguous(),
            "scratch": scratch,
            "grad_cuts": cuts,
            "grad_features": grad_features if features_needed and not shared else None,
            "grad_first": of_maps[0] if reads else None,
            "grad_second": of_maps[1] if reads and not shared else None,
            "per_sample": per_sample,
            "maps_sample": 0 if flat_maps is None else flat_maps.stride(0),
            "maps_map": 0 if flat_maps is None else flat_maps.stride(1),
            "maps_pixel": 0 if flat_maps is None else flat_maps.stride(2),
        },
        {
            "WEIGHTS_NEEDED": weights_needed,
            "MAPS": count,
            "SCRATCH": scratch.shape[1],
            "SPAN": pool_split.tiles_each * pool.rows if pool.planar else pool.vector * pool.lanes,
            "pool": pool,
            "pool_split": pool_split,
            "pool_written": pool.onto(grad_features.flatten(2)) if grad_features.dim() == 4 else pool,
            "read": read,
            "read_split": read_split,
            "read_written": read.onto(of_maps[0].flatten(2)) if reads else read,
        },
        num_warps=warps,
    )
    return Found(of_maps[0] if shared else grad_features, of_maps, per_sample, cuts), launch
