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
                  the batch does not hold: every row of dW is written by exactly one program

For `dual_cam` one launch serves two classifiers that read a map each: `which` is then a program's map and classifier.
A label outside [0,K) touches no memory: it gives NaN CAMs and no weight gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.label_cam.reference import BackwardInputs
from iir_fast.kernels.label_cam.share import differentiate_share, sum_share
from iir_fast.kernels.launch import Launch, launched
from iir_fast.kernels.sums import class_sums, plan_total
from iir_fast.kernels.tiles import Tile, channel_share, own_share, pixel_share, pixel_shares

# Programs that keep a large GPU busy, and the fewest channels one of them is worth.
PROGRAMS = 512
CHANNELS = 256
# Integers that change from batch to batch and from task to task: no variant of a kernel depends on their values.
RUN_TIME = ["batch", "classes", "tiles_each"]


class Maps(NamedTuple):
    """What classifiers read: one map, or a map for each of two."""

    first: Tensor
    """[B,C,P]"""
    second: Tensor | None
    """As `first`, strides and dtype included."""

    @classmethod
    def of(cls, maps: Sequence[Tensor]) -> Maps:
        """Prepare maps [B,C,H,W]; two that differ are copied."""
        if len(maps) == 1:
            return cls(maps[0].flatten(2), None)
        first, second = maps
        if first.stride() != second.stride() or first.dtype != second.dtype:
            dtype = torch.promote_types(first.dtype, second.dtype)
            first, second = (each.to(dtype).contiguous() for each in maps)
        return cls(first.flatten(2), second.flatten(2))


class Parts(NamedTuple):
    """What programs that share a sum have each made of it."""

    cams: Tensor
    """[S,B,R,P], S shares of the channels."""
    pooled: Tensor
    """[S,M,B,C], S shares of the pixels, M maps."""


class Incoming(NamedTuple):
    """All that gradients of maps come from; R classifiers."""

    cams: Tensor
    """[B,R,H,W]"""
    pooled: Tensor
    """[S,B,C], whose sum it is, of one map; [M,B,C] of several."""
    beside: Factors | None = None
    """What else the gradient of the one map is to hold."""
    cuts: Tensor | None = None
    """[B,R]: gradients of thresholds' offsets, which are of `offset_weights` [R,C] and the pooled map."""
    offset_weights: Tensor | None = None


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
    R_PADDED: tl.constexpr,
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
            sum_share(own_map, weights, label, cams, pooled, classes, share, R, R_PADDED, tile)


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
    FEATURES_NEEDED: tl.constexpr,
    WEIGHTS_NEEDED: tl.constexpr,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    S: tl.constexpr,
    M: tl.constexpr,
    M_PADDED: tl.constexpr,
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
    share, label = own_share(tiles_each, tile), tl.load(labels + sample)
    for number in tl.static_range(MAPS):
        if which == number:
            differentiate_share(
                grad_cams,
                grad_pooled,
                differences,
                masks,
                added,
                cuts,
                offset_weights,
                (features if number == 0 else second) + sample * features_sample,
                weights,
                label,
                (grad_features if number == 0 else grad_second) + sample * (tile.channels * tile.pixels),
                per_sample,
                tl.num_programs(0).to(tl.int64) * tile.channels,
                classes,
                share,
                FEATURES_NEEDED,
                WEIGHTS_NEEDED,
                R,
                R_PADDED,
                S,
                M,
                M_PADDED,
                tile,
                written,
            )


def plan_parts(maps: Maps, weights: Tensor, labels: Tensor) -> tuple[Parts, Launch]:
    """Allocate parts of CAMs and pooled features, of one map or of a map for each classifier, and describe the launch
    that fills them."""
    features, second = maps
    dtype = accumulation_dtype(features, weights)
    batch, channels, pixels = features.shape
    classifiers, classes, _ = weights.shape
    count = 1 if second is None else 2
    tile = Tile.over(features)
    programs = PROGRAMS // max(1, count * batch)
    split = tile.split(programs, CHANNELS) if tile.planar and tile.windows == 1 else tile.split()
    parts = Parts(
        features.new_empty((split.channel_shares, batch, classifiers, pixels), dtype=dtype),
        features.new_empty((split.pixel_shares, count, batch, channels), dtype=dtype),
    )
    readers = classifiers // count
    launch = Launch(
        _label_cam_forward_kernel,
        (count * batch, *split.grid),
        {
            "features": features,
            "second": second,
            "weights": weights.contiguous(),
            "labels": labels.contiguous(),
            **parts._asdict(),
            "features_sample": features.stride(0),
            "classes": classes,
            "tiles_each": split.tiles_each,
        },
        {"R": readers, "R_PADDED": triton.next_power_of_2(readers), "MAPS": count, "tile": tile},
    )
    return parts, launch


def plan_forward(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launches that fill them."""
    parts, launch = plan_parts(Maps.of([features]), weights, labels)
    (cams, of_cams), (pooled, of_pooled) = plan_total(parts.cams), plan_total(parts.pooled)
    return (cams.unflatten(2, features.shape[2:]), pooled[0]), [launch, *of_cams, *of_pooled]


def plan_gradients(
    incoming: Incoming,
    maps: Sequence[Tensor],
    weights: Tensor,
    labels: Tensor,
    maps_needed: bool,
    weights_needed: bool,
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
    programs = PROGRAMS // max(1, count * batch * tile.windows)
    split = tile.split(programs, CHANNELS) if tile.planar else tile.split()
    dtype = accumulation_dtype(features, weights)
    per_sample = features.new_empty(
        (batch if weights_needed else 0, split.pixel_shares, classifiers, channels), dtype=dtype
    )
    like = [features.unflatten(2, maps[0].shape[2:])] * count
    gradients = [gradient_like(each) if maps_needed else features.new_empty(0) for each in like]
    flat_cams = incoming.cams.flatten(2)
    if flat_cams.stride()[1:] != (flat_cams.shape[2], 1):
        flat_cams = flat_cams.contiguous()
    others, readers = 0 if beside is None else beside.per_channel.shape[1], classifiers // count
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
            "grad_features": gradients[0],
            "grad_second": None if second is None else gradients[1],
            "per_sample": per_sample,
            "grad_cams_sample": flat_cams.stride(0),
            "features_sample": features.stride(0),
            "classes": classes,
            "tiles_each": split.tiles_each,
        },
        {
            "FEATURES_NEEDED": maps_needed,
            "WEIGHTS_NEEDED": weights_needed,
            "R": readers,
            "R_PADDED": triton.next_power_of_2(readers),
            "S": len(incoming.pooled) // count,
            "M": others,
            "M_PADDED": triton.next_power_of_2(others) if others else 0,
            "MAPS": count,
            "tile": tile,
            "written": tile.onto(gradients[0].flatten(2)) if maps_needed else tile,
        },
    )
    return (gradients, per_sample), launch


def plan_backward(*arguments: Any) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them."""
    given = BackwardInputs(*arguments)
    incoming = Incoming(given.grad_cams, given.grad_pooled.unsqueeze(0))
    weights, labels = given.weights, given.labels
    needed = given.features_needed, given.weights_needed
    (gradients, per_sample), launch = plan_gradients(incoming, [given.features], weights, labels, *needed)
    if not given.weights_needed:
        return (gradients[0], weights.new_empty(0)), [launch]
    grad_weights = weights.new_empty(weights.shape)
    return (gradients[0], grad_weights), [launch, class_sums(per_sample, labels.contiguous(), grad_weights)]


forward = launched(plan_forward)
backward = launched(plan_backward)
