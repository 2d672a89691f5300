"""dual_cam on Triton with a whole sample to a program: both kernels.

A program walks over its sample as the programs of the single rooms do together, share by share, and takes one step
after the other: what one step writes, the next one reads behind a barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

from iir_fast.kernels.label_cam.triton import differentiate_share as differentiate_cams
from iir_fast.kernels.label_cam.triton import sum_share
from iir_fast.kernels.masked_pool.triton import differentiate_share as differentiate_pool
from iir_fast.kernels.masked_pool.triton import pool_share
from iir_fast.kernels.regulate.sample import differentiate_sample, regulate_sample
from iir_fast.kernels.tiles import share_at


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
    BLOCK: tl.constexpr,
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
    label = tl.load(labels + sample)
    parts += sample * 2 * P
    pooled += sample * C
    for which in tl.static_range(MAPS):
        own_map = (first if which == 0 else second) + sample * first_sample
        own_weights = weights + which * (classes.to(tl.int64) * C)
        for window in tl.range(0, read_split.window_shares, disable_licm=True):
            share = share_at(0, window, read_split.tiles_each, read)
            own_cams = parts + window * batch * 2 * P + which * P
            own_pooled = pooled + which * batch * C
            sum_share(own_map, own_weights, label, own_cams, own_pooled, classes, share, READERS, read)
    tl.debug_barrier()
    if given is not None:
        given += 2 * sample
    if offsets is not None:
        offsets += 2 * sample
    if cams is not None:
        cams += 2 * sample * P
    masks += 2 * sample * P
    regulate_sample(
        parts,
        parts + P,
        given,
        offsets,
        pooled,
        pooled + (MAPS - 1) * batch * C,
        offset_weights,
        offset_biases,
        cams,
        terms + 2 * sample,
        masks,
        maps + 2 * sample * P,
        thresholds + 2 * sample,
        temperature,
        1,
        1,
        read_split.window_shares,
        batch * 2 * P,
        P,
        BLOCK,
        C,
    )
    tl.debug_barrier()
    features += sample * features_sample
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
    BLOCK: tl.constexpr,
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
    if grad_maps is not None:
        grad_maps += sample * maps_sample
    cams += sample * 2 * P
    differentiate_sample(
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
        sample,
        temperature,
        P,
        1,
        maps_map,
        maps_pixel,
        1,
        1,
        PARTS,
        2 * P,
        P,
        BLOCK,
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
