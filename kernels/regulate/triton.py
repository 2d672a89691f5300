"""regulate on Triton: one launch forward, one backward, one program per sample.

A program reads both CAMs of its sample, with their own strides, and holds them in registers when they have at most
`MAX_HELD` pixels; a larger map is read again, block by block, in every pass. A pass ends in scalars that the
next one needs, summed in a fixed order:

    forward   1. minimum, maximum -> span   2. mean -> threshold, unless given   3. masks, maps, terms
    backward  1. and 2. as forward          3. per map: the sums of its gradient  4. per map: its gradient

For `dual_cam`, whose kernels call these, too, CAMs and gradients of masks may come in the parts that several programs
made of them, and offsets are made here of the pooled maps. A "plane" is one image plane of the sample: (first block,
pointer, stride between pixels). The temperature is declared float64: Triton takes an undeclared float as float32.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, accumulation_dtype
from iir_fast.kernels.launch import Argument, Launch, launched, strides_of
from iir_fast.kernels.regulate import gradient_of_cuts
from iir_fast.kernels.regulate.reference import Gradients, Inputs

# Integers that change with the batch: no variant of a kernel depends on their values.
RUN_TIME = ["parts", "part_stride", "pooled_map"]
MAX_HELD = 1024
LOOP_BLOCK = 512
PIXELS_PER_WARP = 32
MAX_WARPS = 16

_FLAT_RELATIVE, _FLAT_ABSOLUTE = tl.constexpr(FLAT_RELATIVE), tl.constexpr(FLAT_ABSOLUTE)
_MEAN_MARGIN, _CHANNELS = tl.constexpr(MEAN_MARGIN), tl.constexpr(256)


@triton.jit
def _load(pointer, stride, start, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Load pixels from `start` on; zero behind the last."""
    pixel = start + tl.arange(0, BLOCK)
    return tl.load(pointer + pixel * stride, mask=pixel < P, other=0).to(dtype)


@triton.jit
def _read_plane(pointer, stride, parts, part_stride, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Read a plane: the sum of `parts` of them, which only one that is held may have more than one of."""
    held = _load(pointer, stride, 0, dtype, P, BLOCK)
    for part in range(1, parts):
        held += _load(pointer + part * part_stride, stride, 0, dtype, P, BLOCK)
    return held, pointer, stride


@triton.jit
def _read_block(plane, start, P: tl.constexpr, BLOCK: tl.constexpr):
    """Read pixels from `start` on: the first block if that is the whole plane, else read again."""
    held, pointer, stride = plane
    if P <= BLOCK:
        return held
    else:
        return _load(pointer, stride, start, held.dtype, P, BLOCK)


@triton.jit
def _normalize(values, low, span):
    # Rounded to nearest, so that the maximum becomes 1 exactly; float64 always is.
    return tl.fdiv(values - low, span, ieee_rounding=values.dtype == tl.float32)


@triton.jit
def _move(mean, offset):
    """Compute the threshold that an offset makes of a mean, and its derivatives by the mean and by the offset."""
    # A plain number would be rounded to float32 in a `where`. Comparisons keep a NaN.
    margin = tl.full((), _MEAN_MARGIN, mean.dtype)
    kept = tl.where(mean < margin, margin, tl.where(mean > 1 - margin, 1 - margin, mean))
    logit = tl.log(kept / (1 - kept))
    w = tl.sigmoid(-2 * offset)
    cut = tl.sigmoid(2 * w * logit)
    slope = cut * (1 - cut)
    to_mean = tl.where(kept == mean, 2 * slope * w / (mean * (1 - mean)), 0)
    return cut, to_mean, -4 * slope * w * (1 - w) * logit


@triton.jit
def _offset_of(pooled, weights, bias, dtype: tl.constexpr, C: tl.constexpr):
    """Compute the offset of a threshold: pooled [C] times weights [C], plus a bias."""
    total = tl.full([_CHANNELS], 0, dtype)
    for start in range(0, C, _CHANNELS):
        channel = start + tl.arange(0, _CHANNELS)
        values = tl.load(pooled + channel, mask=channel < C, other=0).to(dtype)
        total += values * tl.load(weights + channel, mask=channel < C, other=0).to(dtype)
    return tl.sum(total) + tl.load(bias).to(dtype)


@triton.jit
def _prepare(cam, given, offset, number, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Prepare all that a CAM needs before it meets the other: its plane, minimum, maximum, divisor and threshold; the
    mean, and the threshold's derivatives by it and by what was given."""
    low = tl.full((), float("inf"), dtype)
    high = tl.full((), float("-inf"), dtype)
    flaw = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        values = _read_block(cam, start, P, BLOCK)
        inside = start + tl.arange(0, BLOCK) < P
        low = tl.minimum(low, tl.min(tl.where(inside, values, float("inf"))))
        high = tl.maximum(high, tl.max(tl.where(inside, values, float("-inf"))))
        # A minimum may skip a NaN; a value minus itself is 0 if it is finite, else NaN.
        flaw += tl.sum(values - values)
    span = high - low
    flaw += span - span
    flat = span <= tl.maximum(tl.abs(low), tl.abs(high)) * _FLAT_RELATIVE + _FLAT_ABSOLUTE
    # Dividing by infinity gives a constant map the value 0 and the gradient 0.
    span = tl.where(flat, float("inf"), span) + flaw
    zero, one = tl.full((), 0, dtype), tl.full((), 1, dtype)
    if given is not None:
        return cam, low, high, span, tl.load(given + number).to(dtype), zero, zero, one
    total = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        total += tl.sum(tl.where(inside, _normalize(_read_block(cam, start, P, BLOCK), low, span), 0))
    mean = total / P
    if offset is not None:
        cut, to_mean, to_offset = _move(mean, offset)
        return cam, low, high, span, cut, mean, to_mean, to_offset
    return cam, low, high, span, mean, mean, one, zero


@triton.jit
def _masked(cam, start, tau, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of a prepared CAM: its values, normalized map and mask."""
    plane, low, _high, span, cut, _mean, _to_mean, _to_given = cam
    values = _read_block(plane, start, P, BLOCK)
    normalized = _normalize(values, low, span)
    return values, normalized, tl.sigmoid((normalized - cut) / tau)


@triton.jit(do_not_specialize=RUN_TIME)
def regulate_forward_kernel(
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
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    """Regulate. CAMs in `parts` that lie `part_stride` apart are added, and written to `cams`, if there; offsets are
    made of the pooled map, if their weights are there."""
    # cam_a, cam_b parts x [B,P], given, offsets [B,2], pooled [1 or 2,B,C], offset_weights [2,C], offset_biases [2]
    # -> cams, masks, maps [B,2,P], terms, thresholds [B,2]; in registers [BLOCK] of each map
    sample = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = maps.dtype.element_ty
    first = 2 * sample
    cam_a += sample * a_sample
    cam_b += sample * b_sample
    masks += first * P
    maps += first * P
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offset_weights is not None:
        pooled += sample * C
        offset_a = _offset_of(pooled, offset_weights, offset_biases, dtype, C)
        offset_b = _offset_of(pooled + pooled_map, offset_weights + C, offset_biases + 1, dtype, C)
        tl.store(offsets + first, offset_a)
        tl.store(offsets + first + 1, offset_b)
    elif offsets is not None:
        offset_a, offset_b = tl.load(offsets + first).to(dtype), tl.load(offsets + first + 1).to(dtype)
    plane_a = _read_plane(cam_a, a_pixel, parts, part_stride, dtype, P, BLOCK)
    plane_b = _read_plane(cam_b, b_pixel, parts, part_stride, dtype, P, BLOCK)
    if cams is not None:
        cams += first * P
        pixel = tl.arange(0, BLOCK)
        tl.store(cams + pixel, plane_a[0], mask=pixel < P)
        tl.store(cams + P + pixel, plane_b[0], mask=pixel < P)
    a = _prepare(plane_a, given, offset_a, first, dtype, P, BLOCK)
    b = _prepare(plane_b, given, offset_b, first + 1, dtype, P, BLOCK)
    tl.store(thresholds + first, a[4])
    tl.store(thresholds + first + 1, b[4])
    dual = tl.full((), 0, dtype)
    agreement = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        inside = pixel < P
        _values_a, map_a, mask_a = _masked(a, start, tau, P, BLOCK)
        _values_b, map_b, mask_b = _masked(b, start, tau, P, BLOCK)
        apart = map_a - map_b
        dual_here = mask_a * mask_b * map_a * map_b + (1 - mask_a) * (1 - mask_b) * apart * apart
        agreement_here = mask_a * (1 - mask_b) + mask_b * (1 - mask_a)
        dual += tl.sum(tl.where(inside, dual_here, 0))
        agreement += tl.sum(tl.where(inside, agreement_here, 0))
        tl.store(maps + pixel, map_a, mask=inside)
        tl.store(maps + P + pixel, map_b, mask=inside)
        tl.store(masks + pixel, mask_a, mask=inside)
        tl.store(masks + P + pixel, mask_b, mask=inside)
    tl.store(terms + first, dual / P)
    tl.store(terms + first + 1, agreement / P)


@triton.jit
def _z_and_q(own, other, incoming, start, tau, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of one CAM: its values, normalized map, z, and q without the threshold's part."""
    # all [BLOCK]
    grad_mask, grad_map, dual, agreement = incoming
    values, map_x, mask = _masked(own, start, tau, P, BLOCK)
    _values, map_y, mask_y = _masked(other, start, tau, P, BLOCK)
    apart = map_x - map_y
    h = dual * (mask_y * map_x * map_y - (1 - mask_y) * apart * apart) + agreement * (1 - 2 * mask_y)
    z = (_read_block(grad_mask, start, P, BLOCK) + h) * mask * (1 - mask) / tau
    q = dual * (mask * mask_y * map_y + 2 * (1 - mask) * (1 - mask_y) * apart)
    if grad_map is not None:
        q += _read_block(grad_map, start, P, BLOCK)
    return values, map_x, z, q + z


@triton.jit
def _write_gradient(own, other, incoming, grad_cut, tau, gradient, P: tl.constexpr, BLOCK: tl.constexpr):
    """Write the gradient of the CAM `own`, both being prepared. Returns that of what was given of its threshold."""
    # gradient [P]; in registers [BLOCK]
    _plane, low, high, span, _cut, mean, to_mean, to_given = own
    dtype: tl.constexpr = low.dtype
    sum_z = tl.full((), 0, dtype)
    through_low, through_high = sum_z, sum_z
    at_low = tl.full((), 0, tl.int32)
    at_high = at_low
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, P, BLOCK)
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
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, P, BLOCK)
        result = (q + to_all) / span
        result += tl.where(values == low, to_lowest, 0) - tl.where(values == high, to_highest, 0)
        tl.store(gradient + pixel, result.to(gradient.dtype.element_ty), mask=pixel < P)
    return e * to_given


@triton.jit(do_not_specialize=RUN_TIME)
def regulate_backward_kernel(
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
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Differentiate; the gradient of the masks is the sum of `parts`."""
    # grad_terms, grad_thresholds, given, offsets [B,2], grad_masks parts x [B,2,P], grad_maps [B,2,P], cam_a, cam_b
    # [B,P] -> grad_a, grad_b [B,P], grad_cuts [B,2]; in registers [BLOCK] of each map
    sample = tl.program_id(0).to(tl.int64)
    grad_masks += sample * masks_sample
    dtype: tl.constexpr = grad_masks.dtype.element_ty
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offsets is not None:
        offset_a, offset_b = tl.load(offsets + 2 * sample).to(dtype), tl.load(offsets + 2 * sample + 1).to(dtype)
    plane_a = _read_plane(cam_a + sample * a_sample, a_pixel, 1, 0, dtype, P, BLOCK)
    plane_b = _read_plane(cam_b + sample * b_sample, b_pixel, 1, 0, dtype, P, BLOCK)
    a = _prepare(plane_a, given, offset_a, 2 * sample, dtype, P, BLOCK)
    b = _prepare(plane_b, given, offset_b, 2 * sample + 1, dtype, P, BLOCK)
    grad_mask_a = _read_plane(grad_masks, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_mask_b = _read_plane(grad_masks + masks_map, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_map_a, grad_map_b = None, None
    if grad_maps is not None:
        grad_maps += sample * maps_sample
        grad_map_a = _read_plane(grad_maps, maps_pixel, 1, 0, dtype, P, BLOCK)
        grad_map_b = _read_plane(grad_maps + maps_map, maps_pixel, 1, 0, dtype, P, BLOCK)
    dual = tl.load(grad_terms + 2 * sample) / P
    agreement = tl.load(grad_terms + 2 * sample + 1) / P
    to_a = grad_mask_a, grad_map_a, dual, agreement
    to_b = grad_mask_b, grad_map_b, dual, agreement
    to_cut_a = tl.full((), 0, dtype)
    to_cut_b = to_cut_a
    if grad_thresholds is not None:
        to_cut_a += tl.load(grad_thresholds + 2 * sample)
        to_cut_b += tl.load(grad_thresholds + 2 * sample + 1)
    to_given_a = _write_gradient(a, b, to_a, to_cut_a, tau, grad_a + sample * grad_sample, P, BLOCK)
    to_given_b = _write_gradient(b, a, to_b, to_cut_b, tau, grad_b + sample * grad_sample, P, BLOCK)
    if (given is not None) or (offsets is not None):
        tl.store(grad_cuts + 2 * sample, to_given_a.to(grad_cuts.dtype.element_ty))
        tl.store(grad_cuts + 2 * sample + 1, to_given_b.to(grad_cuts.dtype.element_ty))


def _launch(kernel: Any, inputs: Inputs, arguments: dict[str, Argument], **constants: int) -> Launch:
    """Make the launch of a kernel that takes these arguments beside the inputs."""
    # Views unless H and W cannot be walked with one stride; the CAMs are small.
    flat_a, flat_b = inputs.cam_a.flatten(1), inputs.cam_b.flatten(1)
    pixels = flat_a.shape[1]
    block = triton.next_power_of_2(pixels) if pixels <= MAX_HELD else LOOP_BLOCK
    warps = max(1, min(MAX_WARPS, block // PIXELS_PER_WARP))
    given, offsets = (None if each is None else each.contiguous() for each in (inputs.thresholds, inputs.offsets))
    taken: dict[str, Argument] = {"cam_a": flat_a, "cam_b": flat_b, "given": given, "offsets": offsets}
    taken |= {"temperature": inputs.temperature, **strides_of("a", flat_a), **strides_of("b", flat_b), **arguments}
    return Launch(kernel, (len(flat_a),), taken, {"P": pixels, "BLOCK": block, **constants}, num_warps=warps)


def plan_results(inputs: Inputs, channels: int = 1, **more: Argument) -> tuple[tuple[Tensor, ...], Launch]:
    """Allocate terms, masks, maps and thresholds and describe the launch that fills them; `more` are arguments of the
    kernel for CAMs in parts, and for offsets that are made of pooled maps of so many channels."""
    batch, height, width = inputs.cam_a.shape
    like = inputs.cam_a.new_empty(0, dtype=accumulation_dtype(inputs.cam_a, inputs.cam_b))
    terms, cuts = like.new_empty(batch, 2), like.new_empty(batch, 2)
    masks, maps = (like.new_empty(batch, 2, height, width) for _ in range(2))
    arguments: dict[str, Argument] = {"parts": 1, "part_stride": 0, "pooled_map": 0}
    arguments |= dict.fromkeys(("pooled", "offset_weights", "offset_biases", "cams"))
    arguments |= {"terms": terms, "masks": masks, "maps": maps, "thresholds": cuts, **more}
    return (terms, masks, maps, cuts), _launch(regulate_forward_kernel, inputs, arguments, C=channels)


def plan_gradients(incoming: Gradients, inputs: Inputs, grad_a: Tensor, grad_b: Tensor) -> tuple[Tensor, Launch]:
    """Allocate the gradient of thresholds or offsets and describe the launch that fills it, and those of the CAMs; that
    of the masks comes in parts [S,B,2,H,W], whose sum it is."""
    grad_cuts = gradient_of_cuts(inputs.cam_a, inputs.given)
    flat_masks = incoming.masks.flatten(3)
    flat_maps = None if incoming.maps is None else incoming.maps.flatten(2)
    arguments: dict[str, Argument] = {
        "grad_terms": incoming.terms.contiguous(),
        "grad_masks": flat_masks,
        "grad_maps": flat_maps,
        "grad_thresholds": None if incoming.thresholds is None else incoming.thresholds.contiguous(),
        "grad_a": grad_a,
        "grad_b": grad_b,
        "grad_cuts": grad_cuts,
        "grad_sample": grad_a.stride(0),
        **strides_of("masks", flat_masks[0]),
        # Strides of maps that are not there are of no use.
        **strides_of("maps", flat_masks[0] if flat_maps is None else flat_maps),
        "parts": len(flat_masks),
        "part_stride": flat_masks.stride(0),
    }
    return grad_cuts, _launch(regulate_backward_kernel, inputs, arguments)


def plan_forward(*arguments: Any) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    results, launch = plan_results(Inputs(*arguments))
    return results, [launch]


def plan_backward(*arguments: Any) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """Plan the same for `backward`."""
    incoming, inputs = Gradients(*arguments[:4]), Inputs(*arguments[4:])
    grad_a, grad_b = (cam.new_empty(cam.shape) for cam in (inputs.cam_a, inputs.cam_b))
    incoming = incoming._replace(masks=incoming.masks.unsqueeze(0))
    grad_cuts, launch = plan_gradients(incoming, inputs, grad_a, grad_b)
    return (grad_a, grad_b, grad_cuts), [launch]


forward = launched(plan_forward)
backward = launched(plan_backward)
