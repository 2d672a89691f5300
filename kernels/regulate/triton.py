"""regulate on Triton: one launch forward, one backward, one program per sample.

A program reads both CAMs of its sample, with their own strides, and holds them in registers when they have at most
`LARGEST_HELD` pixels; a larger map is read again, block by block, in every pass. A pass ends in scalars that the
next one needs, summed in a fixed order:

    forward   1. minimum, maximum -> span   2. mean -> threshold, unless given   3. masks, maps, terms
    backward  1. and 2. as forward          3. per map: the sums of its gradient  4. per map: its gradient

The letters in the code are those of the room's docstring. A "plane" is one image plane of one sample, and how to
read it: (first block, pointer, stride between pixels). The temperature is declared float64, for Triton takes a float
that is not declared as float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, accumulation_dtype
from iir_fast.kernels.launch import Launch, launched, strides_of
from iir_fast.kernels.regulate import gradient_of_cuts

LARGEST_HELD = 1024
LOOP_BLOCK = 512
PIXELS_PER_WARP = 32
MOST_WARPS = 16

_FLAT_RELATIVE = tl.constexpr(FLAT_RELATIVE)
_FLAT_ABSOLUTE = tl.constexpr(FLAT_ABSOLUTE)
_MEAN_MARGIN = tl.constexpr(MEAN_MARGIN)


@triton.jit
def _load(pointer, stride, start, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Pixels from `start` on; zero behind the last."""
    pixel = start + tl.arange(0, BLOCK)
    return tl.load(pointer + pixel * stride, mask=pixel < P, other=0).to(dtype)


@triton.jit
def _plane(pointer, stride, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    return _load(pointer, stride, 0, dtype, P, BLOCK), pointer, stride


@triton.jit
def _block(plane, start, P: tl.constexpr, BLOCK: tl.constexpr):
    """Pixels from `start` on: the first block if that is the whole plane, else read again."""
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
    """The threshold that an offset makes of a mean, and its derivatives by the mean and by the offset."""
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
def _prepare(pointer, stride, given, offsets, number, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """All that a CAM needs before it meets the other: its plane, minimum, maximum, divisor and threshold; the mean, and
    the threshold's derivatives by it and by what was given."""
    cam = _plane(pointer, stride, dtype, P, BLOCK)
    low = tl.full((), float("inf"), dtype)
    high = tl.full((), float("-inf"), dtype)
    flaw = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        values = _block(cam, start, P, BLOCK)
        inside = start + tl.arange(0, BLOCK) < P
        low = tl.minimum(low, tl.min(tl.where(inside, values, float("inf"))))
        high = tl.maximum(high, tl.max(tl.where(inside, values, float("-inf"))))
        # A minimum may skip a NaN; a value minus itself is 0 if it is finite, else NaN.
        flaw += tl.sum(values - values)
    span = high - low
    flat = span <= tl.maximum(tl.abs(low), tl.abs(high)) * _FLAT_RELATIVE + _FLAT_ABSOLUTE
    # Dividing by infinity gives a constant map the value 0 and the gradient 0.
    span = tl.where(flat, float("inf"), span) + flaw
    zero, one = tl.full((), 0, dtype), tl.full((), 1, dtype)
    if given is not None:
        return cam, low, high, span, tl.load(given + number).to(dtype), zero, zero, one
    total = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        total += tl.sum(tl.where(inside, _normalize(_block(cam, start, P, BLOCK), low, span), 0))
    mean = total / P
    if offsets is not None:
        cut, to_mean, to_offset = _move(mean, tl.load(offsets + number).to(dtype))
        return cam, low, high, span, cut, mean, to_mean, to_offset
    return cam, low, high, span, mean, mean, one, zero


@triton.jit
def _prepare_both(
    cam_a,
    cam_b,
    given,
    offsets,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    dtype: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`_prepare` for both CAMs of the program's sample."""
    sample = tl.program_id(0).to(tl.int64)
    a = _prepare(cam_a + sample * a_sample, a_pixel, given, offsets, 2 * sample, dtype, P, BLOCK)
    b = _prepare(cam_b + sample * b_sample, b_pixel, given, offsets, 2 * sample + 1, dtype, P, BLOCK)
    return a, b


@triton.jit
def _masked(cam, start, tau, HARD: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of a prepared CAM: its values, normalized map, soft mask, and the mask in use."""
    plane, low, _high, span, cut, _mean, _to_mean, _to_given = cam
    values = _block(plane, start, P, BLOCK)
    normalized = _normalize(values, low, span)
    distance = normalized - cut
    soft = tl.sigmoid(distance / tau)
    mask = soft
    if HARD:
        # The difference keeps a NaN a NaN.
        mask = tl.where(distance >= 0, 1.0, 0.0).to(soft.dtype) + (distance - distance)
    return values, normalized, soft, mask


@triton.jit
def _regulate_forward_kernel(
    cam_a,
    cam_b,
    given,
    offsets,
    terms,
    masks,
    maps,
    thresholds,
    temperature: tl.float64,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = maps.dtype.element_ty
    tau = tl.full((), temperature, dtype)
    a, b = _prepare_both(cam_a, cam_b, given, offsets, a_sample, a_pixel, b_sample, b_pixel, dtype, P, BLOCK)
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
    z = (_block(grad_mask, start, P, BLOCK) + h) * soft * (1 - soft) / tau
    q = dual * (mask * mask_y * map_y + 2 * (1 - mask) * (1 - mask_y) * apart)
    if MAPS:
        q += _block(grad_map, start, P, BLOCK)
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


@triton.jit
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
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = grad_masks.dtype.element_ty
    MAPS: tl.constexpr = grad_maps is not None
    tau = tl.full((), temperature, dtype)
    grad_masks += sample * masks_sample
    grad_mask_a = _plane(grad_masks, masks_pixel, dtype, P, BLOCK)
    grad_mask_b = _plane(grad_masks + masks_map, masks_pixel, dtype, P, BLOCK)
    grad_map_a, grad_map_b = grad_mask_a, grad_mask_b
    if MAPS:
        grad_maps += sample * maps_sample
        grad_map_a = _plane(grad_maps, maps_pixel, dtype, P, BLOCK)
        grad_map_b = _plane(grad_maps + maps_map, maps_pixel, dtype, P, BLOCK)
    a, b = _prepare_both(cam_a, cam_b, given, offsets, a_sample, a_pixel, b_sample, b_pixel, dtype, P, BLOCK)
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


class _Inputs(NamedTuple):
    """What regulate takes."""

    cam_a: Tensor
    cam_b: Tensor
    thresholds: Tensor | None
    offsets: Tensor | None
    temperature: float
    hard: bool

    def launch(
        self, kernel: Any, gradients: dict[str, Tensor | None], results: dict[str, Tensor], strides: dict[str, int]
    ) -> Launch:
        """The launch of a kernel that has these arguments besides."""
        # Views unless H and W cannot be walked with one stride; the CAMs are small.
        flat_a, flat_b = self.cam_a.flatten(1), self.cam_b.flatten(1)
        given, offsets = (None if each is None else each.contiguous() for each in (self.thresholds, self.offsets))
        pixels = flat_a.shape[1]
        block = triton.next_power_of_2(pixels) if pixels <= LARGEST_HELD else LOOP_BLOCK
        return Launch(
            kernel,
            (len(flat_a),),
            {
                **gradients,
                **{"cam_a": flat_a, "cam_b": flat_b, "given": given, "offsets": offsets},
                **results,
                "temperature": self.temperature,
                **strides,
                **strides_of("a", flat_a),
                **strides_of("b", flat_b),
            },
            {"HARD": self.hard, "P": pixels, "BLOCK": block},
            num_warps=max(1, min(MOST_WARPS, block // PIXELS_PER_WARP)),
        )


def plan_forward(*arguments: Any) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    inputs = _Inputs(*arguments)
    batch, height, width = inputs.cam_a.shape
    like = inputs.cam_a.new_empty(0, dtype=accumulation_dtype(inputs.cam_a, inputs.cam_b))
    terms, cuts = like.new_empty(batch, 2), like.new_empty(batch, 2)
    masks, maps = (like.new_empty(batch, 2, height, width) for _ in range(2))
    results = {"terms": terms, "masks": masks, "maps": maps, "thresholds": cuts}
    return (terms, masks, maps, cuts), [inputs.launch(_regulate_forward_kernel, {}, results, {})]


def plan_backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    *arguments: Any,
    grad_cams: Tensor | None = None,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """The same for `backward`; `grad_cams` [B,2,H,W]: where the gradients of both CAMs go."""
    inputs = _Inputs(*arguments)
    own = [each.new_empty(each.shape) for each in inputs[:2]] if grad_cams is None else grad_cams.unbind(1)
    grad_a, grad_b = own
    grad_cuts = gradient_of_cuts(inputs.cam_a, inputs.thresholds, inputs.offsets)
    flat_masks = grad_masks.flatten(2)
    flat_maps = None if grad_maps is None else grad_maps.flatten(2)
    gradients = {
        "grad_terms": grad_terms.contiguous(),
        "grad_masks": flat_masks,
        "grad_maps": flat_maps,
        "grad_thresholds": None if grad_thresholds is None else grad_thresholds.contiguous(),
    }
    results = {"grad_a": grad_a, "grad_b": grad_b, "grad_cuts": grad_cuts}
    # Strides of maps that are not there are of no use.
    of_maps = strides_of("maps", flat_masks if flat_maps is None else flat_maps)
    strides = {"grad_sample": grad_a.stride(0), **strides_of("masks", flat_masks), **of_maps}
    return (grad_a, grad_b, grad_cuts), [inputs.launch(_regulate_backward_kernel, gradients, results, strides)]


def plan_backward_of_both(*arguments: Any) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """The same with one tensor [B,2,H,W] for both CAMs' gradients, in the dtype of the first."""
    cam_a = arguments[4]
    grad_cams = cam_a.new_empty((len(cam_a), 2, *cam_a.shape[1:]))
    (_, _, grad_cuts), launches = plan_backward(*arguments, grad_cams=grad_cams)
    return (grad_cams, grad_cuts), launches


forward = launched(plan_forward)
backward = launched(plan_backward)
backward_of_both = launched(plan_backward_of_both)
