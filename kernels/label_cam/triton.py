"""label_cam on Triton: one read of the features forward, one read and one write backward.

How a program walks over its share of a sample, and what a tile is: `kernels/tiles.py`.

    forward    a program sums over channels into CAMs and over pixels into pooled features, from the same tile. One
               of the two sums runs along the tile's rows and stays in the threads until the program ends; the other
               runs along its window and is written tile by tile. Where several programs share a sum, each writes a
               part, and a second launch adds the parts.
    backward   1. a program writes its tiles of dF, with what `dual_cam` wants of other products in it, and, from one
                  read of F, sum_p F G of each of its channels: the sample's own weight gradient [B,R,C] (several
                  parts of it where the pixels are shared)
               2. sums of these over the samples of each class, in the samples' order, and zeros for the classes that
                  the batch does not hold: every row of dW is written by exactly one program; or the sums are added to
                  a gradient that is there

A label outside [0,K) touches no memory: it gives NaN CAMs and no weight gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.tiles import (
    STAGES,
    Tile,
    channel_share,
    load_tile,
    load_window,
    own_share,
    pixel_share,
    pixel_shares,
    row_index,
    store_tile,
    sum_across_threads,
    sum_in_threads,
    sum_parts,
    window_index,
)

# Programs that keep a large GPU busy, and the fewest channels one of them is worth.
PROGRAMS = 512
CHANNELS = 256
# Integers that change from batch to batch and from task to task: no variant of a kernel depends on their values.
RUN_TIME = ["batch", "classes", "tiles_each"]


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=["labels"])
def _label_cam_forward_kernel(
    features,
    weights,
    labels,
    cams,
    pooled,
    features_sample,
    classes,
    tiles_each,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    tile: tl.constexpr,
):
    dtype: tl.constexpr = cams.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64)
    first_row, row_end, window, window_end = own_share(tiles_each, tile)
    features += sample * features_sample
    cams += (channel_share(tile) * tl.num_programs(0) + sample) * (R * tile.pixels)
    pooled += (pixel_share(tile) * tl.num_programs(0) + sample) * tile.channels
    label = tl.load(labels + sample)
    known = (label >= 0) & (label < classes)
    used = tl.where(known, R, 0)
    missing = tl.where(known, 0.0, float("nan"))
    weights += label * tile.channels
    stride = classes.to(tl.int64) * tile.channels
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


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=["labels"])
def _label_cam_backward_kernel(
    grad_cams,
    grad_pooled,
    differences,
    masks,
    added,
    features,
    weights,
    labels,
    grad_features,
    per_sample,
    grad_cams_sample,
    features_sample,
    classes,
    tiles_each,
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
    dtype: tl.constexpr = per_sample.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64)
    first_row, row_end, window, window_end = own_share(tiles_each, tile)
    features += sample * features_sample
    grad_features += sample * (tile.channels * tile.pixels)
    grad_cams += sample * grad_cams_sample
    grad_pooled += sample * tile.channels
    per_sample += (sample * pixel_shares(tile) + pixel_share(tile)) * (R * tile.channels)
    label = tl.load(labels + sample)
    used = tl.where((label >= 0) & (label < classes), R, 0)
    weights += label * tile.channels
    stride = classes.to(tl.int64) * tile.channels
    classifier = tl.arange(0, R_PADDED)[:, None, None, None]

    if tile.planar:
        gradients = load_window(grad_cams, tile.pixels, R, window, window_end, R_PADDED, dtype, tile)

    if FEATURES_NEEDED:
        if M > 0:
            region = tl.arange(0, M_PADDED)[:, None, None, None]
            differences += sample * (M * tile.channels)
            masks += sample * (M * tile.pixels)
            added += sample * tile.channels
            if tile.planar:
                mask = load_window(masks, tile.pixels, M, window, window_end, M_PADDED, dtype, tile)
            else:
                difference = load_window(differences, tile.channels, M, window, window_end, M_PADDED, dtype, tile)
        if not tile.planar:
            vectors = load_window(weights, stride, used, window, window_end, R_PADDED, dtype, tile)
            everywhere = load_window(grad_pooled, 0, 1, window, window_end, 1, dtype, tile)
            for part in tl.static_range(1, S):
                another = grad_pooled + part * tl.num_programs(0).to(tl.int64) * tile.channels
                everywhere += load_window(another, 0, 1, window, window_end, 1, dtype, tile)
            everywhere *= 1 / tile.pixels
            if M > 0:
                everywhere += load_window(added, 0, 1, window, window_end, 1, dtype, tile)
        for row in range(first_row, row_end, tile.rows):
            rows = row_index(row, tile)
            inside = rows < row_end
            if tile.planar:
                vectors = tl.load(weights + classifier * stride + rows, mask=(classifier < used) & inside, other=0)
                vectors = vectors.to(dtype)
                everywhere = tl.load(grad_pooled + rows, mask=inside, other=0).to(dtype)
                for part in tl.static_range(1, S):
                    another = grad_pooled + part * tl.num_programs(0).to(tl.int64) * tile.channels
                    everywhere += tl.load(another + rows, mask=inside, other=0).to(dtype)
                everywhere *= 1 / tile.pixels
                if M > 0:
                    source = differences + region * tile.channels + rows
                    difference = tl.load(source, mask=(region < M) & inside, other=0)
                    everywhere += tl.load(added + rows, mask=inside, other=0)
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


@triton.jit(do_not_specialize=RUN_TIME, do_not_specialize_on_alignment=["labels"])
def _class_sums_kernel(
    per_sample,
    labels,
    grad_weights,
    batch,
    classes,
    PARTS: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    LABELS: tl.constexpr,
    CLASSES: tl.constexpr,
    MEMBERS: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
):
    """The first `batch` programs take a sample each: the first one of a class sums its class. The others, which are not
    there with `ADD`, take `CLASSES` classes each and write the zeros."""
    task = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    target = grad_weights + (column // C).to(tl.int64) * classes * C + column % C
    if task < batch:
        label = tl.load(labels + task)
        earlier = tl.full([LABELS], 0, tl.int32)
        for start in range(0, task, LABELS):
            sample = start + tl.arange(0, LABELS)
            earlier += (tl.load(labels + sample, mask=sample < task, other=-1) == label).to(tl.int32)
        if (tl.sum(earlier) == 0) & (label >= 0) & (label < classes):
            sums = tl.full([BLOCK], 0, per_sample.dtype.element_ty)
            if ADD:
                sums += tl.load(target + label * C, mask=inside, other=0)
            for start in range(task * PARTS, batch * PARTS, LABELS):
                part = start + tl.arange(0, LABELS)
                member = tl.load(labels + part // PARTS, mask=part < batch * PARTS, other=-1) == label
                rank = tl.cumsum(member.to(tl.int32), 0)
                count = tl.max(rank)
                for first in range(1, count + 1, MEMBERS):
                    wanted = first + tl.arange(0, MEMBERS)[:, None]
                    chosen = tl.sum(tl.where(member & (rank == wanted), part, 0), 1)[:, None].to(tl.int64)
                    rows = tl.load(per_sample + chosen * WIDTH + column, mask=(wanted <= count) & inside, other=0)
                    sums += tl.sum(rows, 0)
            tl.store(target + label * C, sums.to(grad_weights.dtype.element_ty), mask=inside)
    else:
        own = (task - batch) * CLASSES + tl.arange(0, CLASSES)[:, None]
        present = tl.full([CLASSES, LABELS], 0, tl.int32)
        for start in range(0, batch, LABELS):
            sample = start + tl.arange(0, LABELS)
            present |= (tl.load(labels + sample, mask=sample < batch, other=-1) == own).to(tl.int32)
        absent = tl.max(present, 1, keep_dims=True) == 0
        zeros = tl.full([CLASSES, BLOCK], 0, grad_weights.dtype.element_ty)
        tl.store(target + own.to(tl.int64) * C, zeros, mask=absent & (own < classes) & inside)


def plan_forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launches that fill them."""
    dtype = accumulation_dtype(features, weights)
    batch, channels, height, width = features.shape
    classifiers, classes, _ = weights.shape
    maps = features.flatten(2)
    tile = Tile.over(maps)
    split = tile.split(PROGRAMS // max(1, batch), CHANNELS) if tile.planar and tile.windows == 1 else tile.split()
    cams = features.new_empty((batch, classifiers, height, width), dtype=dtype)
    pooled = features.new_empty((batch, channels), dtype=dtype)
    cam_parts = cams if split.channel_shares == 1 else cams.new_empty((split.channel_shares, *cams.shape))
    pooled_parts = pooled if split.pixel_shares == 1 else pooled.new_empty((split.pixel_shares, *pooled.shape))
    launches = [
        Launch(
            _label_cam_forward_kernel,
            (batch, *split.grid),
            {
                "features": maps,
                "weights": weights.contiguous(),
                "labels": labels.contiguous(),
                "cams": cam_parts,
                "pooled": pooled_parts,
                "features_sample": maps.stride(0),
                "classes": classes,
                "tiles_each": split.tiles_each,
            },
            {"R": classifiers, "R_PADDED": triton.next_power_of_2(classifiers), "tile": tile},
        )
    ]
    if cam_parts is not cams:
        launches.append(sum_parts(cam_parts, cams))
    if pooled_parts is not pooled:
        launches.append(sum_parts(pooled_parts, pooled))
    return (cams, pooled), launches


def plan_backward(
    grad_cams: Tensor,
    grad_pooled: Tensor,
    features: Tensor,
    weights: Tensor,
    labels: Tensor,
    features_needed: bool,
    weights_needed: bool,
    beside: Factors | None = None,
    sums: Tensor | None = None,
) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them.

    `grad_pooled`: [B,C], or [S,B,C], whose sum it is. `beside`: what else the gradient of the features is to hold.
    `sums` [R,K,C], contiguous: what that of the weights is added to, in place, in the accumulation dtype.
    """
    batch, channels = features.shape[:2]
    classifiers, classes, _ = weights.shape
    maps = features.flatten(2)
    # Fewer elements in each thread where twice as many products meet them.
    tile = Tile.over(maps, per_thread=16 if beside is None else 8)
    tile = tile.thinner(min(4, tile.vector)) if beside is not None and tile.flat else tile
    split = tile.split(PROGRAMS // max(1, batch * tile.windows), CHANNELS) if tile.planar else tile.split()
    grad_features = gradient_like(features) if features_needed else features.new_empty(0)
    grad_weights = weights.new_empty(weights.shape if weights_needed else 0) if sums is None else sums
    others = 0 if beside is None else beside.per_channel.shape[1]
    parts = batch * split.pixel_shares if weights_needed else 0
    per_sample = features.new_empty((parts, classifiers, channels), dtype=accumulation_dtype(features, weights))
    labels = labels.contiguous()
    flat_cams = grad_cams.flatten(2)
    if flat_cams.stride()[1:] != (flat_cams.shape[2], 1):
        flat_cams = flat_cams.contiguous()
    launches = [
        Launch(
            _label_cam_backward_kernel,
            (batch, *split.grid),
            {
                "grad_cams": flat_cams,
                "grad_pooled": grad_pooled.contiguous(),
                "differences": None if beside is None else beside.per_channel,
                "masks": None if beside is None else beside.per_pixel,
                "added": None if beside is None else beside.added,
                "features": maps,
                "weights": weights.contiguous(),
                "labels": labels,
                "grad_features": grad_features,
                "per_sample": per_sample,
                "grad_cams_sample": flat_cams.stride(0),
                "features_sample": maps.stride(0),
                "classes": classes,
                "tiles_each": split.tiles_each,
            },
            {
                "FEATURES_NEEDED": features_needed,
                "WEIGHTS_NEEDED": weights_needed,
                "R": classifiers,
                "R_PADDED": triton.next_power_of_2(classifiers),
                "S": 1 if grad_pooled.dim() == 2 else grad_pooled.shape[0],
                "M": others,
                "M_PADDED": triton.next_power_of_2(others) if others else 0,
                "tile": tile,
                "written": tile.onto(grad_features.flatten(2)) if features_needed else tile,
            },
        )
    ]
    if weights_needed:
        block, classes_each = min(512, triton.next_power_of_2(classifiers * channels)), 16
        # Zeros are there already if the sums are added to something.
        tasks = batch + (triton.cdiv(classes, classes_each) if sums is None else 0)
        launches.append(
            Launch(
                _class_sums_kernel,
                (tasks, triton.cdiv(classifiers * channels, block)),
                {
                    "per_sample": per_sample,
                    "labels": labels,
                    "grad_weights": grad_weights,
                    "batch": batch,
                    "classes": classes,
                },
                {
                    "PARTS": split.pixel_shares,
                    "C": channels,
                    "WIDTH": classifiers * channels,
                    "LABELS": 128,
                    "CLASSES": classes_each,
                    "MEMBERS": 4,
                    "BLOCK": block,
                    "ADD": sums is not None,
                },
            )
        )
    return (grad_features, grad_weights), launches


forward = launched(plan_forward)
backward = launched(plan_backward)
