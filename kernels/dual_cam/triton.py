"""dual_cam on Triton: one launch each way beside the logits where F is small (`whole.py`), and else the kernels of the
operators that it is made of, on sums that the next one finishes.

forward    1. `label_cam`: parts of the CAMs, and the pooled map, of one map or of both in one launch
           2. logits, a matrix product of torch
           3. `regulate`: the CAMs of their parts, the offsets of the pooled map, and all that follows
           4. `masked_pool`
backward   1. `masked_pool`: parts of dm, and what its share of dF is made of, or that gradient itself
           2. `regulate`: dP, dr
           3. through the logits to the pooled map, a matrix product of torch
           4. `label_cam`: one write of dF, or of both maps' gradients, and each sample's rows of dW
           5. through the logits to dW, another product
           6. these rows, added to dW by class, and the sums over the batch that biases and offsets take

Where CAMs have weights of their own, a launch before all that writes each sample's row of them, and one of torch before
the second product sums these rows' gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import Factors, accumulation_dtype, gradient_like
from iir_fast.kernels.dual_cam import whole
from iir_fast.kernels.dual_cam.native import (
    logits_of,
    or_zeros,
    pooled_through_logits,
    through_regulate,
    weights_through_logits,
)
from iir_fast.kernels.dual_cam.reference import Found, Gradients, Inputs, Saved
from iir_fast.kernels.label_cam import triton as label_cam
from iir_fast.kernels.label_cam.reference import Incoming, Maps
from iir_fast.kernels.launch import Argument, Launch, recorded, run
from iir_fast.kernels.masked_pool import triton as masked_pool
from iir_fast.kernels.masked_pool.reference import BackwardInputs
from iir_fast.kernels.regulate import TEMPERATURE
from iir_fast.kernels.regulate import reference as of_regulate
from iir_fast.kernels.regulate import triton as regulate
from iir_fast.kernels.sums import plan_total, sum_class
from iir_fast.kernels.tiles import Tile

# Where a loop's bounds are known to it, as in `whole.py`, Triton 3.5 copies two bytes at a time, and refuses to.
COMPILES = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6)
# Bytes of a sample's map: 128 of them take 48 MiB, and still lie in the L2 cache of a large GPU when read again.
LARGEST = 384 * 1024
# A program's columns of the weights, and rows that it takes at a time.
COLUMNS = 32
ROWS = 64
# Columns of a program, and samples that it adds at a time.
BLOCK = 128
SAMPLES = 16

_SAMPLES = tl.constexpr(SAMPLES)


@triton.jit
def _sum_over_batch(matrix, factors, column, inside, stride, batch, dtype: tl.constexpr):
    """Sum columns of matrix [B,stride], each row times its factor, which are two apart, in the batch's order."""
    # matrix [B,stride], factors [B,2]; total [samples at once, column]
    total = tl.full([_SAMPLES, column.shape[0]], 0, dtype)
    for start in range(0, batch, _SAMPLES):
        sample = start + tl.arange(0, _SAMPLES)[:, None]
        values = tl.load(matrix + sample.to(tl.int64) * stride + column, mask=(sample < batch) & inside, other=0)
        values = values.to(dtype)
        if factors is not None:
            values *= tl.load(factors + 2 * sample, mask=sample < batch, other=0).to(dtype)
        total += values
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["batch", "classes", "rows"], do_not_specialize_on_alignment=["labels"])
def _parameters_kernel(
    per_sample,
    labels,
    grad_weights,
    grad_logits,
    grad_biases,
    grad_offsets,
    pooled,
    grad_offset_weights,
    grad_offset_biases,
    batch,
    classes,
    rows,
    MAPS: tl.constexpr,
    PARTS: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Make all gradients of parameters. The first `rows` programs take a sample each, to sum its class. Then come two,
    one for each classifier r, whose gradients of biases and of offsets are sums over the batch."""
    # per_sample [B,PARTS,2*C], labels [B], grad_logits [2,B,K], grad_offsets [B,2], pooled [MAPS,B,C]
    # -> grad_weights [2,K,C], grad_biases [2,K], grad_offset_weights [2,C], grad_offset_biases [2]
    task = tl.program_id(0)
    dtype: tl.constexpr = per_sample.dtype.element_ty
    first = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if grad_weights is not None:  # noqa: SIM102 (known to the compiler, the other is not)
        if task < rows:
            sum_class(task, per_sample, labels, grad_weights, first, batch, classes, PARTS, C, 2 * C, True)
    if task >= rows:
        r = (task - rows).to(tl.int64)
        for start in range(0, classes, BLOCK * tl.num_programs(1)):
            k = start + first
            found = tl.full([BLOCK], 0, dtype)
            if grad_logits is not None:
                own = grad_logits + r * batch * classes
                found += _sum_over_batch(own, None, k, k < classes, classes, batch, dtype)
            tl.store(grad_biases + r * classes + k, found.to(grad_biases.dtype.element_ty), mask=k < classes)
        if grad_offsets is not None:
            read = pooled + (r * batch * C if MAPS == 2 else 0)
            for start in range(0, C, BLOCK * tl.num_programs(1)):
                c = start + first
                found = _sum_over_batch(read, grad_offsets + r, c, c < C, C, batch, dtype)
                tl.store(grad_offset_weights + r * C + c, found.to(grad_offset_weights.dtype.element_ty), mask=c < C)
            # The columns of [B,2] from r on, the first of them alone.
            found = _sum_over_batch(grad_offsets + r, None, first, first < 1, 2, batch, dtype)
            tl.store(grad_offset_biases + r + first, found.to(grad_offset_biases.dtype.element_ty), mask=first < 1)


@triton.jit(do_not_specialize=["batch", "classes"], do_not_specialize_on_alignment=["labels"])
def _label_rows_kernel(
    weights,
    labels,
    rows,
    places,
    batch,
    classes,
    TAKEN: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write each sample's row of a classifier's weights less TAKEN of the mean of all rows, and each sample's place.
    A label that is no class gives NaN."""
    # weights [2,K,C], labels [B] -> rows [2,B,C], places [B]; total, own [rows, columns]
    column, r = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.program_id(1).to(tl.int64)
    inside = column < C
    dtype: tl.constexpr = rows.dtype.element_ty
    weights += r * classes * C
    total = tl.full([ROWS, COLUMNS], 0, dtype)
    for start in range(0, classes, ROWS):
        k = start + tl.arange(0, ROWS)[:, None]
        total += tl.load(weights + k.to(tl.int64) * C + column, mask=(k < classes) & inside, other=0).to(dtype)
    common = tl.sum(total, 0) * TAKEN / classes
    for start in range(0, batch, ROWS):
        sample = start + tl.arange(0, ROWS)[:, None]
        label = tl.load(labels + sample, mask=sample < batch, other=-1)
        known = (label >= 0) & (label < classes)
        own = tl.load(weights + label * C + column, mask=known & inside, other=float("nan")).to(dtype)
        tl.store(rows + (r * batch + sample) * C + column, own - common, mask=(sample < batch) & inside)
        if tl.program_id(0) + tl.program_id(1) == 0:
            tl.store(places + sample, sample.to(tl.int64), mask=sample < batch)


@recorded
def forward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    rows, choosing = _plan_rows(inputs)
    of_cams = inputs.of_cams(*rows)
    if _is_small(inputs):
        (pooled, offsets, *results), launch = whole.plan_forward(of_cams)
        run([*choosing, launch])
        return logits_of(inputs, pooled), *results, pooled, offsets, *rows
    maps = Maps.of(inputs.maps)
    (cams, pooled), launch = label_cam.plan_parts(maps, of_cams.weights, of_cams.labels)
    pooled, summing = plan_total(pooled)
    run([*choosing, launch, *summing])
    logits = logits_of(inputs, pooled)
    cams = cams.unflatten(3, inputs.features.shape[2:])
    (cams, offsets, terms, masks, normalized, cuts), regulating = _plan_regulate(inputs, cams, pooled)
    descriptors, pooling = masked_pool.plan_forward(inputs.features, masks)
    run([*regulating, *pooling])
    return logits, cams, terms, masks, normalized, cuts, *descriptors, pooled, offsets, *rows


@recorded
def backward(*arguments: Any) -> tuple[Tensor, ...]:
    given, inputs, saved = Gradients(*arguments[:8]), Inputs(*arguments[8:19]), Saved(*arguments[19:27])
    needed = _, maps_needed, weights_needed = arguments[27:]
    grad_pooled, of_cams = pooled_through_logits(given.logits, inputs, saved.pooled), inputs.of_cams(*saved[-2:])
    pools = given.foreground is not None or given.background is not None
    if pools and given.cams is None and given.masks is None and _is_small(inputs):
        found, launch = whole.plan_backward(given, grad_pooled, of_cams, saved, needed)
    else:
        found, launch = _plan_maps(given, grad_pooled, of_cams, saved, needed)
    run([launch])
    sums = None
    if weights_needed:
        of_rows = found.per_sample.sum((0, 1)) if inputs.has_rows else None
        sums = weights_through_logits(given.logits, inputs, saved.pooled, of_rows)
    of_offsets = None if inputs.offset_weights is None else found.cuts
    results, summing = _plan_parameters(inputs, saved.pooled, given.logits, of_offsets, found.per_sample, sums)
    run([summing])
    features = inputs.features
    grad_maps = [features.new_empty(0), features.new_empty(0)]
    if len(inputs.maps) > 1 and maps_needed:
        grad_maps = [_as_its_map(gradient, each) for gradient, each in zip(found.maps, inputs.maps, strict=True)]
    grad_thresholds = features.new_empty(0)
    if inputs.thresholds is not None:
        grad_thresholds = torch.zeros_like(inputs.thresholds) if found.cuts is None else found.cuts
    grad_weights = features.new_empty(0) if sums is None else sums.to(inputs.weights.dtype)
    return found.features, *grad_maps, grad_weights, *results, grad_thresholds


def _is_small(inputs: Inputs) -> bool:
    """Tell whether a program takes a whole sample: all of its F is near, and a tile spans its pixels."""
    return COMPILES and all(map(_is_near, (inputs.features, *inputs.maps)))


def _is_near(features: Tensor) -> bool:
    channels, height, width = features.shape[1:]
    pixels, tile = height * width, Tile.over(features.flatten(2))
    held = pixels <= regulate.MAX_HELD and not (tile.planar and tile.windows > 1)
    return held and channels * pixels * features.element_size() <= LARGEST


def _plan_rows(inputs: Inputs) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate the rows of the CAMs' weights and the samples' places, and describe the launch that fills them, if CAMs
    have weights of their own."""
    weights, labels = inputs.weights, inputs.labels
    if not inputs.has_rows:
        return (weights.new_empty(0), labels.new_empty(0)), []
    batch, (_, classes, channels) = len(labels), weights.shape
    rows = weights.new_empty((2, batch, channels), dtype=accumulation_dtype(weights))
    places = labels.new_empty(batch)
    launch = Launch(
        _label_rows_kernel,
        (triton.cdiv(channels, COLUMNS), 2),
        {
            "weights": weights.contiguous(),
            "labels": labels.contiguous(),
            "rows": rows,
            "places": places,
            "batch": batch,
            "classes": classes,
        },
        # As a number at run time it would be one of four bytes.
        {"TAKEN": 1 - inputs.class_mean, "C": channels, "COLUMNS": COLUMNS, "ROWS": ROWS},
    )
    return (rows, places), [launch]


def _plan_regulate(inputs: Inputs, parts: Tensor, pooled: Tensor) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """Plan `regulate` of CAMs in parts [S,B,2,H,W] and of pooled maps; before its results come the CAMs [B,2,H,W] and
    the offsets [B,2], empty if there are none."""
    _, batch, _, height, width = parts.shape
    launches = list[Launch]()
    written, offsets = None, None
    if len(parts) == 1:
        cams = parts[0]
    elif height * width > regulate.MAX_HELD:
        cams, launches = plan_total(parts)
        parts = cams.unsqueeze(0)
    else:
        cams = written = parts.new_empty(parts.shape[1:])
    # All parts belong to what the launch is given.
    more: dict[str, Argument] = {"cam_a": parts[:, :, 0], "cam_b": parts[:, :, 1], "cams": written}
    more |= {"parts": len(parts), "part_stride": parts.stride(0)}
    channels = 1
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        channels, offsets = pooled.shape[2], parts.new_empty(batch, 2)
        more |= {
            "pooled": pooled.contiguous(),
            "pooled_map": 0 if len(pooled) == 1 else batch * channels,
            "offset_weights": inputs.offset_weights.contiguous(),
            "offset_biases": inputs.offset_biases.contiguous(),
        }
    given = of_regulate.Inputs(parts[0, :, 0], parts[0, :, 1], inputs.thresholds, offsets, TEMPERATURE)
    results, launch = regulate.plan_results(given, channels, **more)
    return (cams, parts.new_empty(0) if offsets is None else offsets, *results), [*launches, launch]


def _regulate_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Compute the gradient of both CAMs [B,2,H,W], and of thresholds or offsets; that of the masks [S,B,2,H,W] comes in
    parts, whose sum it is."""
    incoming, inputs = of_regulate.Gradients(*arguments[:4]), of_regulate.Inputs(*arguments[4:])
    batch, height, width = inputs.cam_a.shape
    launches = list[Launch]()
    if len(incoming.masks) > 1 and height * width > regulate.MAX_HELD:
        total, launches = plan_total(incoming.masks)
        incoming = incoming._replace(masks=total.unsqueeze(0))
    grad_cams = inputs.cam_a.new_empty(batch, 2, height, width)
    grad_cuts, launch = regulate.plan_gradients(incoming, inputs, *grad_cams.unbind(1))
    run([*launches, launch])
    return grad_cams, grad_cuts


def _plan_maps(
    given: Gradients, grad_pooled: Tensor, inputs: Inputs, saved: Saved, needed: tuple[bool, bool, bool]
) -> tuple[Found, Launch]:
    """Go through masked_pool and regulate, and describe the launch that fills the gradients of what was read."""
    features_needed, maps_needed, weights_needed = needed
    grad_features, factors, grad_masks = _through_pool(given, inputs, saved, features_needed)
    like = saved.masks.unsqueeze(0)
    grad_cams, grad_cuts = through_regulate(_regulate_backward, given, grad_masks, like, inputs, saved)
    learned = inputs.offset_weights is not None
    if learned and grad_cuts is None:
        grad_cuts = torch.zeros_like(saved.offsets)
    incoming = Incoming(grad_cams, grad_pooled, factors, grad_cuts if learned else None, inputs.offset_weights)
    shared = len(inputs.maps) == 1
    reads = features_needed if shared else maps_needed
    (of_maps, per_sample), launch = label_cam.plan_gradients(
        incoming, inputs.maps, inputs.weights, inputs.labels, reads, weights_needed
    )
    return Found(of_maps[0] if shared else grad_features, of_maps, per_sample, grad_cuts), launch


def _through_pool(
    given: Gradients, inputs: Inputs, saved: Saved, features_needed: bool
) -> tuple[Tensor, Factors | None, Tensor | None]:
    """Return the gradient of a map that is pooled only, or what is to be written of that of one that is read, too; and
    that of the masks, in parts [S,B,2,H,W]."""
    features, shared = inputs.features, len(inputs.maps) == 1
    more = None if given.masks is None else given.masks.unsqueeze(0)
    if given.foreground is None and given.background is None:
        grad_features = features.new_empty(0) if shared or not features_needed else torch.zeros_like(features)
        return grad_features, None, more
    gradients = or_zeros(given.foreground, saved.foreground), or_zeros(given.background, saved.background)
    pooling = BackwardInputs(*gradients, features, saved.masks, saved.foreground, saved.background, features_needed)
    grad_features, factors = features.new_empty(0), None
    if shared:
        (factors, parts), launch = masked_pool.plan_factors(pooling)
    else:
        (grad_features, parts), launch = masked_pool.plan_parts(pooling)
    run([launch])
    return grad_features, factors, parts if more is None else torch.cat((parts, more))


def _plan_parameters(
    inputs: Inputs,
    pooled: Tensor,
    grad_logits: Tensor | None,
    grad_offsets: Tensor | None,
    per_sample: Tensor,
    sums: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], Launch]:
    """Allocate gradients of biases, offsets' weights and offsets' biases, and describe the launch that fills them and
    adds the labels' rows to `sums`, if there are any."""
    batch, classes, channels = len(inputs.labels), *inputs.weights.shape[1:]
    grad_biases, grad_offset_weights, grad_offset_biases = (
        pooled.new_empty(0) if each is None else each.new_empty(each.shape)
        for each in (inputs.biases, inputs.offset_weights, inputs.offset_biases)
    )
    rows = 0 if sums is None else batch
    launch = Launch(
        _parameters_kernel,
        (rows + 2, triton.cdiv(2 * channels, BLOCK)),
        {
            "per_sample": per_sample,
            "labels": inputs.labels.contiguous(),
            "grad_weights": sums,
            "grad_logits": None if grad_logits is None else grad_logits.contiguous(),
            "grad_biases": grad_biases,
            "grad_offsets": grad_offsets,
            "pooled": pooled,
            "grad_offset_weights": grad_offset_weights,
            "grad_offset_biases": grad_offset_biases,
            "batch": batch,
            "classes": classes,
            "rows": rows,
        },
        {"MAPS": len(inputs.maps), "PARTS": per_sample.shape[1], "C": channels, "BLOCK": BLOCK},
    )
    return (grad_biases, grad_offset_weights, grad_offset_biases), launch


def _as_its_map(gradient: Tensor, of: Tensor) -> Tensor:
    """Bring a tensor to the dtype and layout of a map that was copied to be like the other one."""
    wanted = gradient_like(of)
    same = (wanted.dtype, wanted.stride()) == (gradient.dtype, gradient.stride())
    return gradient if same else wanted.copy_(gradient)
