"""label_cam on Triton: one read of the features forward, one read and one write backward.

How a program walks over its share of a sample, and what a tile is: `kernels/tiles.py`.

    forward    a program sums over channels into CAMs and over pixels into pooled features, from the same tile: one
               sum runs along the tile's rows and stays in the threads until the program ends, the other runs along its
               window and is written tile by tile. Parts of several programs are added by a second launch.
    backward   1. a program writes its tiles of dF, with what `dual_cam` wants of other products in it, and, from one
                  read of F, sum_p F G of each of its channels: the sample's own weight gradient [B,R,C] (several
                  parts of it where the pixels are shared)
               2. sums of these over the samples of each class, in the samples' order: `kernels/sums.py`

For `dual_cam` one launch serves two classifiers that read a map each: `which` is then a program's map and classifier.
A label outside [0,K) touches no memory: it gives NaN CAMs and no weight gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype, gradient_like
from iir_fast.kernels.label_cam.reference import BackwardInputs, Incoming, Maps
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.sums import class_sums, plan_total
from iir_fast.kernels.tiles import (
    PROGRAMS,
    STAGES,
    Tile,
    channel_share,
    deal_window,
    load_rows,
    load_tile,
    load_window,
    own_share,
    pixel_share,
    pixel_shares,
    row_index,
    store_rows,
    store_tile,
    store_window,
    sum_across_threads,
    sum_in_threads,
)

# The fewest channels that a program is worth.
CHANNELS = 256
# Integers that change from batch to batch and from task to task: no variant of a kernel depends on their values.
RUN_TIME = ["classes", "tiles_each"]


@triton.jit
def sum_share(features, weights, label, cams, pooled, classes, share, R: tl.constexpr, tile: tl.constexpr):
    """Compute this share's part of the CAMs and of the pooled map of a sample, which all pointers are at: forward."""
    # features [C,P], weights [R,K,C] -> cams [R,P], pooled [C]; in registers [R, vector, rows, lanes]
    dtype: tl.constexpr = cams.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    first_row, row_end, window, window_end = share
    known = (label >= 0) & (label < classes)
    used = tl.where(known, R, 0)
    missing = tl.where(known, 0.0, float("nan"))
    stride = classes.to(tl.int64) * tile.channels
    weights += label * tile.channels

    if tile.planar:
        sums = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            vectors = load_rows(weights, stride, used, row, row_end, R_PADDED, dtype, tile)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            sums += sum_in_threads(vectors * values, True, tile)
            mean = sum_across_threads(sum_in_threads(values, False, tile), False) * (1 / tile.pixels)
            store_rows(pooled, mean, 0, 1, row, row_end, tile)
        store_window(cams, sum_across_threads(sums, True) + missing, tile.pixels, R, window, window_end, tile)
    else:
        vectors = load_window(weights, stride, used, window, window_end, R_PADDED, dtype, tile)
        means = tl.full([1, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            sums = sum_across_threads(sum_in_threads(vectors * values, False, tile), False) + missing
            store_rows(cams, sums, tile.pixels, R, row, row_end, tile)
            means += sum_in_threads(values, True, tile)
        store_window(pooled, sum_across_threads(means, True) * (1 / tile.pixels), 0, 1, window, window_end, tile)


@triton.jit
def _at_every_pixel(
    incoming, channel, inside, R: tl.constexpr, S: tl.constexpr, dtype: tl.constexpr, tile: tl.constexpr
):
    """Return what a map's gradient holds at every pixel of these channels: that of the pooled map, and `added`."""
    # the result is shaped like channel
    _grad_cams, grad_pooled, apart, _differences, _masks, added, cuts, offset_weights = incoming
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
    incoming,
    features,
    weights,
    label,
    grad_features,
    per_sample,
    classes,
    share,
    WEIGHTS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    M: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    """Differentiate: this share of dF, and its part of the sample's weight gradient [R,C]; what comes in is that of
    `Incoming`, of the pooled map in S vectors that lie `apart`."""
    # grad_cams [R,P], grad_pooled S x [C], differences [M,C], masks [M,P], added [C], cuts [R], offset_weights [R,C],
    # features [C,P], weights [R,K,C] -> grad_features [C,P], per_sample [R,C]; tiles [R or M, vector, rows, lanes]
    grad_cams, _grad_pooled, _apart, differences, masks, _added, _cuts, _offset_weights = incoming
    dtype: tl.constexpr = per_sample.dtype.element_ty
    R_PADDED: tl.constexpr = triton.next_power_of_2(R)
    M_PADDED: tl.constexpr = triton.next_power_of_2(M)
    first_row, row_end, window, window_end = share
    used = tl.where((label >= 0) & (label < classes), R, 0)
    stride = classes.to(tl.int64) * tile.channels
    weights += label * tile.channels

    if tile.planar:
        gradients = load_window(grad_cams, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)

    if grad_features is not None:
        if not tile.planar:
            channel = window + tl.arange(0, tile.vector * tile.lanes)
            everywhere = _at_every_pixel(incoming, channel, channel < window_end, R, S, dtype, tile)
            everywhere = deal_window(everywhere, 1, tile)
            vectors = load_window(weights, stride, used, window, window_end, R_PADDED, dtype, tile)
        if M > 0:
            if tile.planar:
                mask = load_window(masks, tile.pixels, M, window, window_end, M_PADDED, dtype, tile)
            else:
                difference = load_window(differences, tile.channels, M, window, window_end, M_PADDED, dtype, tile)
        for row in range(first_row, row_end, tile.rows):
            if tile.planar:
                vectors = load_rows(weights, stride, used, row, row_end, R_PADDED, dtype, tile)
                rows = row_index(row, tile)
                everywhere = _at_every_pixel(incoming, rows, rows < row_end, R, S, dtype, tile)
                if M > 0:
                    difference = load_rows(differences, tile.channels, M, row, row_end, M_PADDED, dtype, tile)
            else:
                gradients = load_rows(grad_cams, tile.pixels, R, row, row_end, R_PADDED, dtype, tile)
                if M > 0:
                    mask = load_rows(masks, tile.pixels, M, row, row_end, M_PADDED, dtype, tile)
            gradient = tl.sum(vectors * gradients, 0, keep_dims=True) + everywhere
            if M > 0:
                gradient += tl.sum(difference * mask, 0, keep_dims=True)
            store_tile(grad_features, gradient, row, row_end, window, window_end, written)

    if WEIGHTS_NEEDED:
        sums = tl.full([R_PADDED, tile.vector, tile.thread_rows, tile.lanes], 0, dtype)
        for row in tl.range(first_row, row_end, tile.rows, num_stages=STAGES):
            if not tile.planar:
                gradients = load_rows(grad_cams, tile.pixels, R, row, row_end, R_PADDED, dtype, tile)
            values = load_tile(features, row, row_end, window, window_end, dtype, tile)
            products = sum_in_threads(values * gradients, not tile.planar, tile)
            if tile.planar:
                store_rows(per_sample, sum_across_threads(products, False), tile.channels, R, row, row_end, tile)
            else:
                sums += products
        if not tile.planar:
            store_window(per_sample, sum_across_threads(sums, True), tile.channels, R, window, window_end, tile)


@triton.jit
def _own_sample(MAPS: tl.constexpr):
    """Find this program's sample, and which of `MAPS` maps it reads; the programs of a map stand side by side."""
    program = tl.program_id(0).to(tl.int64)
    if MAPS == 1:
        return program, 0
    else:
        samples = tl.num_programs(0) // MAPS
        return program % samples, program // samples


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=["labels"])
def _label_cam_forward_kernel(
    features,
    second,
    weights,
    labels,
    cams,
    pooled,
    features_sample,
    classes,
    tiles_each,
    R: tl.constexpr,
    MAPS: tl.constexpr,
    tile: tl.constexpr,
):
    # features, second [B,C,P], weights [MAPS*R,K,C], labels [B] -> cams [S,B,MAPS*R,P], pooled [S,MAPS,B,C]
    sample, which = _own_sample(MAPS)
    weights += which * R * (classes.to(tl.int64) * tile.channels)
    cams += ((channel_share(tile) * (tl.num_programs(0) // MAPS) + sample) * MAPS + which) * (R * tile.pixels)
    pooled += (pixel_share(tile) * tl.num_programs(0) + tl.program_id(0).to(tl.int64)) * tile.channels
    share, label = own_share(tiles_each, tile), tl.load(labels + sample)
    # One call for each map: Triton 3.6 cannot choose between two pointers for AMD.
    for number in tl.static_range(MAPS):
        if which == number:
            own_map = (features if number == 0 else second) + sample * features_sample
            sum_share(own_map, weights, label, cams, pooled, classes, share, R, tile)


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=["labels"])
def _label_cam_backward_kernel(
    grad_cams,
    grad_pooled,
    differences,
    masks,
    added,
    cuts,
    offset_weights,
    features,
    second,
    weights,
    labels,
    grad_features,
    grad_second,
    per_sample,
    grad_cams_sample,
    features_sample,
    classes,
    tiles_each,
    WEIGHTS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    M: tl.constexpr,
    MAPS: tl.constexpr,
    tile: tl.constexpr,
    written: tl.constexpr,
):
    # grad_cams [B,MAPS*R,P], grad_pooled [S,B,C] or [MAPS,B,C], differences [B,M,C], masks [B,M,P], added [B,C], cuts
    # [B,MAPS*R], offset_weights [MAPS*R,C], features, second [B,C,P], weights [MAPS*R,K,C], labels [B]
    # -> grad_features, grad_second [B,C,P], per_sample [B,S,MAPS*R,C]
    sample, which = _own_sample(MAPS)
    grad_cams += sample * grad_cams_sample + which * (R * tile.pixels)
    grad_pooled += tl.program_id(0).to(tl.int64) * tile.channels
    per_sample += ((sample * pixel_shares(tile) + pixel_share(tile)) * MAPS + which) * (R * tile.channels)
    weights += which * R * (classes.to(tl.int64) * tile.channels)
    if cuts is not None:
        cuts += (sample * MAPS + which) * R
        offset_weights += which * (R * tile.channels)
    if differences is not None:
        differences += sample * (M * tile.channels)
        masks += sample * (M * tile.pixels)
        added += sample * tile.channels
    apart = tl.num_programs(0).to(tl.int64) * tile.channels
    incoming = grad_cams, grad_pooled, apart, differences, masks, added, cuts, offset_weights
    share, label = own_share(tiles_each, tile), tl.load(labels + sample)
    for number in tl.static_range(MAPS):
        if which == number:
            target = grad_features if number == 0 else grad_second
            if target is not None:
                target += sample * (tile.channels * tile.pixels)
            differentiate_share(
                incoming,
                (features if number == 0 else second) + sample * features_sample,
                weights,
                label,
                target,
                per_sample,
                classes,
                share,
                WEIGHTS_NEEDED,
                R,
                S,
                M,
                tile,
                written,
            )


def plan_parts(maps: Maps, weights: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], Launch]:
    """Allocate CAMs [S,B,R,P] in parts of S shares of the channels, and pooled features [S,M,B,C] of M maps in parts of
    S shares of the pixels, and describe the launch that fills them."""
    features, second = maps
    (batch, channels, pixels), (classifiers, classes, _) = features.shape, weights.shape
    dtype = accumulation_dtype(features, weights)
    count = 1 if second is None else 2
    tile = Tile.over(features)
    alone = tile.planar and tile.windows == 1
    split = tile.split(PROGRAMS // max(1, count * batch), CHANNELS) if alone else tile.split()
    cams = features.new_empty((split.channel_shares, batch, classifiers, pixels), dtype=dtype)
    pooled = features.new_empty((split.pixel_shares, count, batch, channels), dtype=dtype)
    launch = Launch(
        _label_cam_forward_kernel,
        (count * batch, *split.grid),
        {
            "features": features,
            "second": second,
            "weights": weights.contiguous(),
            "labels": labels.contiguous(),
            "cams": cams,
            "pooled": pooled,
            "features_sample": features.stride(0),
            "classes": classes,
            "tiles_each": split.tiles_each,
        },
        {"R": classifiers // count, "MAPS": count, "tile": tile},
    )
    return (cams, pooled), launch


def plan_forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launches that fill them."""
    parts, launch = plan_parts(Maps.of([features]), weights, labels)
    (cams, of_cams), (pooled, of_pooled) = map(plan_total, parts)
    return (cams.unflatten(2, features.shape[2:]), pooled[0]), [launch, *of_cams, *of_pooled]


def plan_gradients(
    incoming: Incoming, maps: Sequence[Tensor], weights: Tensor, labels: Tensor, maps_needed: bool, weights_needed: bool
) -> tuple[tuple[list[Tensor], Tensor], Launch]:
    """Allocate gradients of the maps and, for each sample, of the weights [B,S,R,C] in S parts, and describe the launch
    that fills them."""
    features, second = Maps.of(maps)
    count, classifiers, classes = len(maps), *weights.shape[:2]
    batch, channels, _ = features.shape
    beside = incoming.beside
    # Fewer elements in each thread where twice as many products meet them.
    tile = Tile.over(features, per_thread=16 if beside is None else 8)
    tile = tile.thinner(min(4, tile.vector)) if beside is not None and tile.flat else tile
    split = tile.split(PROGRAMS // max(1, count * batch * tile.windows), CHANNELS) if tile.planar else tile.split()
    shape = batch if weights_needed else 0, split.pixel_shares, classifiers, channels
    per_sample = features.new_empty(shape, dtype=accumulation_dtype(features, weights))
    like = [features.unflatten(2, maps[0].shape[2:])] * count
    gradients = [gradient_like(each) if maps_needed else features.new_empty(0) for each in like]
    flat_cams = incoming.cams.flatten(2)
    if flat_cams.stride()[1:] != (flat_cams.shape[2], 1):
        flat_cams = flat_cams.contiguous()
    launch = Launch(
        _label_cam_backward_kernel,
        (count * batch, *split.grid),
        {
            "grad_cams": flat_cams,
            "grad_pooled": incoming.pooled.contiguous(),
            "differences": None if beside is None else beside.per_channel,
            "masks": None if beside is None else beside.per_pixel,
            "added": None if beside is None else beside.added,
            "cuts": incoming.cuts,
            "offset_weights": None if incoming.offset_weights is None else incoming.offset_weights.contiguous(),
            "features": features,
            "second": second,
            "weights": weights.contiguous(),
            "labels": labels.contiguous(),
            "grad_features": gradients[0] if maps_needed else None,
            "grad_second": gradients[1] if maps_needed and count == 2 else None,
            "per_sample": per_sample,
            "grad_cams_sample": flat_cams.stride(0),
            "features_sample": features.stride(0),
            "classes": classes,
            "tiles_each": split.tiles_each,
        },
        {
            "WEIGHTS_NEEDED": weights_needed,
            "R": classifiers // count,
            "S": len(incoming.pooled) // count,
            "M": 0 if beside is None else beside.per_channel.shape[1],
            "MAPS": count,
            "tile": tile,
            "written": tile.onto(gradients[0].flatten(2)) if maps_needed else tile,
        },
    )
    return (gradients, per_sample), launch


def plan_backward(*arguments: Any) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them."""
    given = BackwardInputs(*arguments)
    incoming, weights, labels = Incoming(given.grad_cams, given.grad_pooled.unsqueeze(0)), given.weights, given.labels
    needed = given.features_needed, given.weights_needed
    (gradients, per_sample), launch = plan_gradients(incoming, [given.features], weights, labels, *needed)
    if not given.weights_needed:
        return (gradients[0], weights.new_empty(0)), [launch]
    grad_weights = weights.new_empty(weights.shape)
    return (gradients[0], grad_weights), [launch, class_sums(per_sample, labels.contiguous(), grad_weights)]


forward = launched(plan_forward)
backward = launched(plan_backward)
