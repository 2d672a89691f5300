"""regulate on Triton: one launch forward, one backward, one program per sample.

A program reads both CAMs of its sample, with their own strides, and holds them in registers when they have at most
`LARGEST_HELD` pixels; a larger map is read again, block by block, in every pass. A pass ends in scalars that the
next one needs, summed in a fixed order:

    forward   1. minimum, maximum -> span   2. mean -> threshold, unless given   3. masks, maps, terms
    backward  1. and 2. as forward          3. per map: the sums of its gradient  4. per map: its gradient

For `dual_cam`, CAMs and gradients of masks may come in the parts that several programs made of them, and offsets are
made here of the pooled maps. The letters in the code are those of the room's docstring. The temperature is declared
float64, for Triton takes a float that is not declared as float32.
"""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype
from iir_fast.kernels.launch import Launch, launched, strides_of
from iir_fast.kernels.regulate import gradient_of_cuts
from iir_fast.kernels.regulate.inputs import Inputs, Sources
from iir_fast.kernels.regulate.prepare import normalize, offset_of, prepare, read_block, read_plane
from iir_fast.kernels.tiles import plan_total

# Integers that change with the batch: no variant of a kernel depends on their values.
RUN_TIME = ["parts", "part_stride", "pooled_map"]
LARGEST_HELD = 1024
LOOP_BLOCK = 512
PIXELS_PER_WARP = 32
MOST_WARPS = 16


@triton.jit
def _masked(cam, start, tau, HARD: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of a prepared CAM: its values, normalized map, soft mask, and the mask in use."""
    plane, low, _high, span, cut, _mean, _to_mean, _to_given = cam
    values = read_block(plane, start, P, BLOCK)
    normalized = normalize(values, low, span)
    distance = normalized - cut
    soft = tl.sigmoid(distance / tau)
    mask = soft
    if HARD:
        # The difference keeps a NaN a NaN.
        mask = tl.where(distance >= 0, 1.0, 0.0).to(soft.dtype) + (distance - distance)
    return values, normalized, soft, mask


@triton.jit(do_not_specialize=RUN_TIME)
def _regulate_forward_kernel(
    cam_a,
    cam_b,
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
    temperature: tl.float64,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    parts,
    part_stride,
    pooled_map,
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = maps.dtype.element_ty
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offset_weights is not None:
        offset_a = offset_of(pooled + sample * C, offset_weights, offset_biases, dtype, C)
        offset_b = offset_of(pooled + pooled_map + sample * C, offset_weights + C, offset_biases + 1, dtype, C)
        tl.store(offsets + 2 * sample, offset_a)
        tl.store(offsets + 2 * sample + 1, offset_b)
    elif offsets is not None:
        offset_a, offset_b = tl.load(offsets + 2 * sample).to(dtype), tl.load(offsets + 2 * sample + 1).to(dtype)
    plane_a = read_plane(cam_a + sample * a_sample, a_pixel, parts, part_stride, dtype, P, BLOCK)
    plane_b = read_plane(cam_b + sample * b_sample, b_pixel, parts, part_stride, dtype, P, BLOCK)
    if cams is not None:
        pixel = tl.arange(0, BLOCK)
        tl.store(cams + 2 * sample * P + pixel, plane_a[0], mask=pixel < P)
        tl.store(cams + (2 * sample + 1) * P + pixel, plane_b[0], mask=pixel < P)
    a = prepare(plane_a, given, offset_a, 2 * sample, dtype, P, BLOCK)
    b = prepare(plane_b, given, offset_b, 2 * sample + 1, dtype, P, BLOCK)
    tl.store(thresholds + 2 * sample, a[4])
    tl.store(thresholds + 2 * sample + 1, b[4])
    dual = tl.full((), 0, dtype)
    agreement = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        inside = pixel < P
        _values_a, map_a, _soft_a, mask_a = _masked(a, start, tau, HARD, P, BLOCK)
        _values_b, map_b, _soft_b, mask_b = _masked(b, start, tau, HARD, P, BLOCK)
        apart = map_a - map_b
        dual_here = mask_a * mask_b * map_a * map_b + (1 - mask_a) * (1 - mask_b) * apart * apart
        agreement_here = mask_a * (1 - mask_b) + mask_b * (1 - mask_a)
        dual += tl.sum(tl.where(inside, dual_here, 0))
        agreement += tl.sum(tl.where(inside, agreement_here, 0))
        offset = 2 * sample * P + pixel
        tl.store(maps + offset, map_a, mask=inside)
        tl.store(maps + offset + P, map_b, mask=inside)
        tl.store(masks + offset, mask_a, mask=inside)
        tl.store(masks + offset + P, mask_b, mask=inside)
    tl.store(terms + 2 * sample, dual / P)
    tl.store(terms + 2 * sample + 1, agreement / P)


@triton.jit
def _z_and_q(
    own, other, incoming, start, tau, MAPS: tl.constexpr, HARD: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr
):
    """Block of one CAM: its values, normalized map, z, and q without the threshold's part."""
    grad_mask, grad_map, dual, agreement = incoming
    values, map_x, soft, mask = _masked(own, start, tau, HARD, P, BLOCK)
    _values, map_y, _soft, mask_y = _masked(other, start, tau, HARD, P, BLOCK)
    apart = map_x - map_y
    h = dual * (mask_y * map_x * map_y - (1 - mask_y) * apart * apart) + agreement * (1 - 2 * mask_y)
    z = (read_block(grad_mask, start, P, BLOCK) + h) * soft * (1 - soft) / tau
    q = dual * (mask * mask_y * map_y + 2 * (1 - mask) * (1 - mask_y) * apart)
    if MAPS:
        q += read_block(grad_map, start, P, BLOCK)
    return values, map_x, z, q + z


@triton.jit
def _write_gradient(
    own,
    other,
    incoming,
    grad_cut,
    tau,
    gradient,
    MAPS: tl.constexpr,
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the CAM `own`, both being prepared. Returns that of what was given of its threshold."""
    _plane, low, high, span, _cut, mean, to_mean, to_given = own
    dtype: tl.constexpr = low.dtype
    sum_z = tl.full((), 0, dtype)
    through_low = tl.full((), 0, dtype)
    through_high = tl.full((), 0, dtype)
    at_low = tl.full((), 0, tl.int32)
    at_high = tl.full((), 0, tl.int32)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, MAPS, HARD, P, BLOCK)
        sum_z += tl.sum(tl.where(inside, z, 0))
        through_low += tl.sum(tl.where(inside, q * (normalized - 1), 0))
        through_high += tl.sum(tl.where(inside, q * normalized, 0))
        at_low += tl.sum((inside & (values == low)).to(tl.int32))
        at_high += tl.sum((inside & (values == high)).to(tl.int32))
    e = grad_cut - sum_z
    # The mean's gradient at every pixel, and what that adds to the two sums.
    to_all = e * to_mean / P
    through_low += e * to_mean * (mean - 1)
    through_high += e * to_mean * mean
    to_lowest = through_low / (span * at_low)
    to_highest = through_high / (span * at_high)
    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, MAPS, HARD, P, BLOCK)
        result = (q + to_all) / span
        result += tl.where(values == low, to_lowest, 0) - tl.where(values == high, to_highest, 0)
        tl.store(gradient + pixel, result.to(gradient.dtype.element_ty), mask=pixel < P)
    return e * to_given


@triton.jit(do_not_specialize=RUN_TIME)
def _regulate_backward_kernel(
    grad_terms,
    grad_masks,
    grad_maps,
    grad_thresholds,
    cam_a,
    cam_b,
    given,
    offsets,
    grad_a,
    grad_b,
    grad_cuts,
    temperature: tl.float64,
    grad_sample,
    masks_sample,
    masks_map,
    masks_pixel,
    maps_sample,
    maps_map,
    maps_pixel,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    parts,
    part_stride,
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = grad_masks.dtype.element_ty
    MAPS: tl.constexpr = grad_maps is not None
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offsets is not None:
        offset_a, offset_b = tl.load(offsets + 2 * sample).to(dtype), tl.load(offsets + 2 * sample + 1).to(dtype)
    plane_a = read_plane(cam_a + sample * a_sample, a_pixel, 1, 0, dtype, P, BLOCK)
    plane_b = read_plane(cam_b + sample * b_sample, b_pixel, 1, 0, dtype, P, BLOCK)
    a = prepare(plane_a, given, offset_a, 2 * sample, dtype, P, BLOCK)
    b = prepare(plane_b, given, offset_b, 2 * sample + 1, dtype, P, BLOCK)
    grad_masks += sample * masks_sample
    grad_mask_a = read_plane(grad_masks, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_mask_b = read_plane(grad_masks + masks_map, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_map_a, grad_map_b = grad_mask_a, grad_mask_b
    if MAPS:
        grad_maps += sample * maps_sample
        grad_map_a = read_plane(grad_maps, maps_pixel, 1, 0, dtype, P, BLOCK)
        grad_map_b = read_plane(grad_maps + maps_map, maps_pixel, 1, 0, dtype, P, BLOCK)
    dual = tl.load(grad_terms + 2 * sample) / P
    agreement = tl.load(grad_terms + 2 * sample + 1) / P
    to_a = grad_mask_a, grad_map_a, dual, agreement
    to_b = grad_mask_b, grad_map_b, dual, agreement
    to_cut_a = tl.full((), 0, dtype)
    to_cut_b = to_cut_a
    if grad_thresholds is not None:
        to_cut_a += tl.load(grad_thresholds + 2 * sample)
        to_cut_b += tl.load(grad_thresholds + 2 * sample + 1)
    to_given_a = _write_gradient(a, b, to_a, to_cut_a, tau, grad_a + sample * grad_sample, MAPS, HARD, P, BLOCK)
    to_given_b = _write_gradient(b, a, to_b, to_cut_b, tau, grad_b + sample * grad_sample, MAPS, HARD, P, BLOCK)
    if (given is not None) or (offsets is not None):
        tl.store(grad_cuts + 2 * sample, to_given_a.to(grad_cuts.dtype.element_ty))
        tl.store(grad_cuts + 2 * sample + 1, to_given_b.to(grad_cuts.dtype.element_ty))


def _launch(
    kernel: Any,
    inputs: Inputs,
    gradients: dict[str, Tensor | None],
    results: dict[str, Tensor | None],
    strides: dict[str, int],
    constants: dict[str, int],
) -> Launch:
    """The launch of a kernel that has these arguments besides."""
    # Views unless H and W cannot be walked with one stride; the CAMs are small.
    flat_a, flat_b = inputs.cam_a.flatten(1), inputs.cam_b.flatten(1)
    given, offsets = (None if each is None else each.contiguous() for each in (inputs.thresholds, inputs.offsets))
    pixels = flat_a.shape[1]
    block = triton.next_power_of_2(pixels) if pixels <= LARGEST_HELD else LOOP_BLOCK
    return Launch(
        kernel,
        (len(flat_a),),
        {
            **gradients,
            **{"cam_a": flat_a, "cam_b": flat_b, "given": given, "offsets": offsets},
            **results,
            "temperature": inputs.temperature,
            **strides_of("a", flat_a),
            **strides_of("b", flat_b),
            **strides,
        },
        {"HARD": inputs.hard, "P": pixels, "BLOCK": block, **constants},
        num_warps=max(1, min(MOST_WARPS, block // PIXELS_PER_WARP)),
    )


def plan_forward(*arguments: Any) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    results, launch = _plan_forward(Inputs(*arguments), {}, {"parts": 1, "part_stride": 0, "pooled_map": 0}, 1)
    return results, [launch]


def plan_from_sources(
    sources: Sources, thresholds: Tensor | None, temperature: float
) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """The same from parts; first come the CAMs [B,2,H,W], and the offsets [B,2], empty if there are none."""
    parts, channels, launches = sources.cams, 1, list[Launch]()
    _, batch, _, height, width = parts.shape
    written, offsets = None, None
    if len(parts) == 1:
        cams = parts[0]
    elif height * width > LARGEST_HELD:
        cams, launches = plan_total(parts)
        parts = cams.unsqueeze(0)
    else:
        cams = written = parts.new_empty(parts.shape[1:])
    # All parts belong to what the launch is given.
    more = {"cam_a": parts[:, :, 0], "cam_b": parts[:, :, 1], "cams": written}
    if sources.offset_weights is not None and sources.offset_biases is not None:
        channels, offsets = sources.pooled.shape[2], parts.new_empty(batch, 2)
        more |= {
            "pooled": sources.pooled.contiguous(),
            "offset_weights": sources.offset_weights.contiguous(),
            "offset_biases": sources.offset_biases.contiguous(),
        }
    strides = {
        "parts": len(parts),
        "part_stride": parts.stride(0),
        "pooled_map": 0 if len(sources.pooled) == 1 else batch * channels,
    }
    inputs = Inputs(parts[0, :, 0], parts[0, :, 1], thresholds, offsets, temperature, False)
    results, launch = _plan_forward(inputs, more, strides, channels)
    return (cams, parts.new_empty(0) if offsets is None else offsets, *results), [*launches, launch]


def _plan_forward(
    inputs: Inputs, more: dict[str, Tensor | None], strides: dict[str, int], channels: int
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Launch]:
    batch, height, width = inputs.cam_a.shape
    like = inputs.cam_a.new_empty(0, dtype=accumulation_dtype(inputs.cam_a, inputs.cam_b))
    terms, cuts = like.new_empty(batch, 2), like.new_empty(batch, 2)
    masks, maps = (like.new_empty(batch, 2, height, width) for _ in range(2))
    results: dict[str, Tensor | None] = dict.fromkeys(("pooled", "offset_weights", "offset_biases", "cams"))
    results |= {**more, "terms": terms, "masks": masks, "maps": maps, "thresholds": cuts}
    launch = _launch(_regulate_forward_kernel, inputs, {}, results, strides, {"C": channels})
    return (terms, masks, maps, cuts), launch


def plan_backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    *arguments: Any,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """The same for `backward`."""
    cam_a, cam_b = arguments[:2]
    grad_a, grad_b = cam_a.new_empty(cam_a.shape), cam_b.new_empty(cam_b.shape)
    gradients = grad_terms, grad_masks.unsqueeze(0), grad_maps, grad_thresholds
    grad_cuts, launch = _plan_backward(*gradients, Inputs(*arguments), grad_a, grad_b)
    return (grad_a, grad_b, grad_cuts), [launch]


def plan_backward_of_both(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    *arguments: Any,
) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """The same with one tensor [B,2,H,W] for both CAMs' gradients, in the dtype of the first; `grad_masks`
    [S,B,2,H,W] is the sum of its parts."""
    cam_a, launches = arguments[0], list[Launch]()
    if len(grad_masks) > 1 and math.prod(cam_a.shape[1:]) > LARGEST_HELD:
        total, launches = plan_total(grad_masks)
        grad_masks = total.unsqueeze(0)
    grad_cams = cam_a.new_empty((len(cam_a), 2, *cam_a.shape[1:]))
    gradients = grad_terms, grad_masks, grad_maps, grad_thresholds
    grad_cuts, launch = _plan_backward(*gradients, Inputs(*arguments), *grad_cams.unbind(1))
    return (grad_cams, grad_cuts), [*launches, launch]


def _plan_backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    inputs: Inputs,
    grad_a: Tensor,
    grad_b: Tensor,
) -> tuple[Tensor, Launch]:
    grad_cuts = gradient_of_cuts(inputs.cam_a, inputs.thresholds, inputs.offsets)
    flat_masks = grad_masks.flatten(3)
    flat_maps = None if grad_maps is None else grad_maps.flatten(2)
    gradients = {
        "grad_terms": grad_terms.contiguous(),
        "grad_masks": flat_masks,
        "grad_maps": flat_maps,
        "grad_thresholds": None if grad_thresholds is None else grad_thresholds.contiguous(),
    }
    results: dict[str, Tensor | None] = {"grad_a": grad_a, "grad_b": grad_b, "grad_cuts": grad_cuts}
    strides = {
        "grad_sample": grad_a.stride(0),
        **strides_of("masks", flat_masks[0]),
        # Strides of maps that are not there are of no use.
        **strides_of("maps", flat_masks[0] if flat_maps is None else flat_maps),
        "parts": len(flat_masks),
        "part_stride": flat_masks.stride(0),
    }
    return grad_cuts, _launch(_regulate_backward_kernel, inputs, gradients, results, strides, {})


forward = launched(plan_forward)
backward = launched(plan_backward)
backward_of_both = launched(plan_backward_of_both)
