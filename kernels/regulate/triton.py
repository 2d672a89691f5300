"""regulate on Triton: one launch forward, one backward, one program per sample.

A program reads both CAMs of its sample, with their own strides, and holds them in registers when they have at most
`LARGEST_HELD` pixels; a larger map is read again, block by block, in every pass. A pass ends in scalars that the
next one needs, summed in a fixed order:

    forward   1. minimum, maximum -> span   2. mean -> threshold, unless given   3. masks, maps, terms
    backward  1. and 2. as forward          3. per map: the sums of its gradient  4. per map: its gradient

The letters in the code are those of the room's docstring. A "plane" is one image plane of one sample, and how to
read it: (first block, pointer, stride between pixels).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, accumulation_dtype
from iir_fast.kernels.launch import Launch, run

LARGEST_HELD = 1024
LOOP_BLOCK = 512
PIXELS_PER_WARP = 64

_FLAT_RELATIVE = tl.constexpr(FLAT_RELATIVE)
_FLAT_ABSOLUTE = tl.constexpr(FLAT_ABSOLUTE)


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
def _prepare(cam, given, P: tl.constexpr, BLOCK: tl.constexpr):
    """Minimum, maximum, divisor and threshold of one CAM: all it needs before it meets the other."""
    dtype: tl.constexpr = cam[0].dtype
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
    flat = span <= _FLAT_RELATIVE * tl.maximum(tl.abs(low), tl.abs(high)) + _FLAT_ABSOLUTE
    # Dividing by infinity gives a constant map the value 0 and the gradient 0.
    span = tl.where(flat, float("inf"), span) + flaw
    if given is not None:
        return low, high, span, tl.load(given).to(dtype)
    total = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        total += tl.sum(tl.where(inside, _normalize(_block(cam, start, P, BLOCK), low, span), 0))
    return low, high, span, total / P


@triton.jit
def _masks(normalized, cut, temperature, HARD: tl.constexpr):
    """The soft mask, and the mask in use."""
    distance = normalized - cut
    soft = tl.sigmoid(distance / temperature)
    if HARD:
        # The difference keeps a NaN a NaN.
        return soft, tl.where(distance >= 0, 1.0, 0.0).to(soft.dtype) + (distance - distance)
    else:
        return soft, soft


@triton.jit
def _forward_kernel(
    cam_a,
    cam_b,
    given,
    terms,
    masks,
    maps,
    thresholds,
    temperature,
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
    a = _plane(cam_a + sample * a_sample, a_pixel, dtype, P, BLOCK)
    b = _plane(cam_b + sample * b_sample, b_pixel, dtype, P, BLOCK)
    low_a, _high_a, span_a, cut_a = _prepare(a, None if given is None else given + 2 * sample, P, BLOCK)
    low_b, _high_b, span_b, cut_b = _prepare(b, None if given is None else given + 2 * sample + 1, P, BLOCK)
    tl.store(thresholds + 2 * sample, cut_a)
    tl.store(thresholds + 2 * sample + 1, cut_b)

    dual = tl.full((), 0, dtype)
    agreement = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        inside = pixel < P
        map_a = _normalize(_block(a, start, P, BLOCK), low_a, span_a)
        map_b = _normalize(_block(b, start, P, BLOCK), low_b, span_b)
        mask_a = _masks(map_a, cut_a, temperature, HARD)[1]
        mask_b = _masks(map_b, cut_b, temperature, HARD)[1]
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
def _z_and_q(own, own_cut, other, other_cut, grad_mask, grad_map, dual, agreement, temperature, HARD: tl.constexpr):
    """The gradient of one normalized map: z, and q without the threshold's part."""
    soft, mask = _masks(own, own_cut, temperature, HARD)
    other_mask = _masks(other, other_cut, temperature, HARD)[1]
    apart = own - other
    of_mask = dual * (other_mask * own * other - (1 - other_mask) * apart * apart) + agreement * (1 - 2 * other_mask)
    of_map = dual * (mask * other_mask * other + 2 * (1 - mask) * (1 - other_mask) * apart)
    z = (grad_mask + of_mask) * soft * (1 - soft) / temperature
    return z, grad_map + of_map + z


@triton.jit
def _write_gradient(
    own,
    own_scalars,
    other,
    other_scalars,
    grad_mask,
    grad_map,
    grad_cut,
    dual,
    agreement,
    temperature,
    gradient,
    CUT_IS_MEAN: tl.constexpr,
    HARD: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the CAM `own`, given the other; the scalars are `_prepare`'s. Returns e."""
    low, high, span, cut = own_scalars
    other_low, _other_high, other_span, other_cut = other_scalars
    dtype: tl.constexpr = own[0].dtype
    sum_z = tl.full((), 0, dtype)
    through_low = tl.full((), 0, dtype)
    through_high = tl.full((), 0, dtype)
    at_low = tl.full((), 0, tl.int32)
    at_high = tl.full((), 0, tl.int32)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        values = _block(own, start, P, BLOCK)
        normalized = _normalize(values, low, span)
        other_normalized = _normalize(_block(other, start, P, BLOCK), other_low, other_span)
        from_mask, from_map = _block(grad_mask, start, P, BLOCK), _block(grad_map, start, P, BLOCK)
        z, q = _z_and_q(
            normalized, cut, other_normalized, other_cut, from_mask, from_map, dual, agreement, temperature, HARD
        )
        sum_z += tl.sum(tl.where(inside, z, 0))
        through_low += tl.sum(tl.where(inside, q * (normalized - 1), 0))
        through_high += tl.sum(tl.where(inside, q * normalized, 0))
        at_low += tl.sum((inside & (values == low)).to(tl.int32))
        at_high += tl.sum((inside & (values == high)).to(tl.int32))
    e = grad_cut - sum_z
    to_all = tl.full((), 0, dtype)
    if CUT_IS_MEAN:
        # e / P at every pixel, and what that adds to the two sums.
        to_all = e / P
        through_low += e * (cut - 1)
        through_high += e * cut
    to_lowest = through_low / (span * at_low)
    to_highest = through_high / (span * at_high)

    for start in range(0, P, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        values = _block(own, start, P, BLOCK)
        normalized = _normalize(values, low, span)
        other_normalized = _normalize(_block(other, start, P, BLOCK), other_low, other_span)
        from_mask, from_map = _block(grad_mask, start, P, BLOCK), _block(grad_map, start, P, BLOCK)
        z, q = _z_and_q(
            normalized, cut, other_normalized, other_cut, from_mask, from_map, dual, agreement, temperature, HARD
        )
        result = (q + to_all) / span
        result += tl.where(values == low, to_lowest, 0) - tl.where(values == high, to_highest, 0)
        tl.store(gradient + pixel, result.to(gradient.dtype.element_ty), mask=pixel < P)
    return e


@triton.jit
def _backward_kernel(
    grad_terms,
    grad_masks,
    grad_maps,
    grad_thresholds,
    cam_a,
    cam_b,
    given,
    grad_a,
    grad_b,
    grad_given,
    temperature,
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
    dtype: tl.constexpr = grad_maps.dtype.element_ty
    grad_masks += sample * masks_sample
    grad_maps += sample * maps_sample
    a = _plane(cam_a + sample * a_sample, a_pixel, dtype, P, BLOCK)
    b = _plane(cam_b + sample * b_sample, b_pixel, dtype, P, BLOCK)
    grad_mask_a = _plane(grad_masks, masks_pixel, dtype, P, BLOCK)
    grad_mask_b = _plane(grad_masks + masks_map, masks_pixel, dtype, P, BLOCK)
    grad_map_a = _plane(grad_maps, maps_pixel, dtype, P, BLOCK)
    grad_map_b = _plane(grad_maps + maps_map, maps_pixel, dtype, P, BLOCK)
    of_a = _prepare(a, None if given is None else given + 2 * sample, P, BLOCK)
    of_b = _prepare(b, None if given is None else given + 2 * sample + 1, P, BLOCK)
    dual = tl.load(grad_terms + 2 * sample) / P
    agreement = tl.load(grad_terms + 2 * sample + 1) / P
    e_a = _write_gradient(
        a,
        of_a,
        b,
        of_b,
        grad_mask_a,
        grad_map_a,
        tl.load(grad_thresholds + 2 * sample),
        dual,
        agreement,
        temperature,
        grad_a + sample * P,
        given is None,
        HARD,
        P,
        BLOCK,
    )
    e_b = _write_gradient(
        b,
        of_b,
        a,
        of_a,
        grad_mask_b,
        grad_map_b,
        tl.load(grad_thresholds + 2 * sample + 1),
        dual,
        agreement,
        temperature,
        grad_b + sample * P,
        given is None,
        HARD,
        P,
        BLOCK,
    )
    if given is not None:
        tl.store(grad_given + 2 * sample, e_a.to(grad_given.dtype.element_ty))
        tl.store(grad_given + 2 * sample + 1, e_b.to(grad_given.dtype.element_ty))


def _blocking(pixels: int) -> tuple[int, int]:
    """Lanes of a block and warps of a program for a map of so many pixels."""
    block = triton.next_power_of_2(pixels) if pixels <= LARGEST_HELD else LOOP_BLOCK
    return block, max(1, block // PIXELS_PER_WARP)


def plan_forward(
    cam_a: Tensor, cam_b: Tensor, thresholds: Tensor | None, temperature: float, hard: bool
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    batch, height, width = cam_a.shape
    dtype = accumulation_dtype(cam_a, cam_b)
    terms, cuts = (cam_a.new_empty((batch, 2), dtype=dtype) for _ in range(2))
    masks, maps = (cam_a.new_empty((batch, 2, height, width), dtype=dtype) for _ in range(2))
    # A view unless H and W cannot be walked with one stride; the CAMs are small.
    flat_a, flat_b = cam_a.flatten(1), cam_b.flatten(1)
    block, warps = _blocking(height * width)
    launch = Launch(
        _forward_kernel,
        (batch,),
        {
            "cam_a": flat_a,
            "cam_b": flat_b,
            "given": None if thresholds is None else thresholds.contiguous(),
            "terms": terms,
            "masks": masks,
            "maps": maps,
            "thresholds": cuts,
            "temperature": temperature,
            "a_sample": flat_a.stride(0),
            "a_pixel": flat_a.stride(1),
            "b_sample": flat_b.stride(0),
            "b_pixel": flat_b.stride(1),
        },
        {"HARD": hard, "P": height * width, "BLOCK": block},
        num_warps=warps,
    )
    return (terms, masks, maps, cuts), [launch]


def plan_backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor,
    grad_thresholds: Tensor,
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launch that fills them."""
    batch, height, width = cam_a.shape
    grad_a, grad_b = cam_a.new_empty(cam_a.shape), cam_b.new_empty(cam_b.shape)
    grad_given = cam_a.new_empty(0) if thresholds is None else thresholds.new_empty(thresholds.shape)
    flat_a, flat_b = cam_a.flatten(1), cam_b.flatten(1)
    flat_masks, flat_maps = grad_masks.flatten(2), grad_maps.flatten(2)
    block, warps = _blocking(height * width)
    launch = Launch(
        _backward_kernel,
        (batch,),
        {
            "grad_terms": grad_terms.contiguous(),
            "grad_masks": flat_masks,
            "grad_maps": flat_maps,
            "grad_thresholds": grad_thresholds.contiguous(),
            "cam_a": flat_a,
            "cam_b": flat_b,
            "given": None if thresholds is None else thresholds.contiguous(),
            "grad_a": grad_a,
            "grad_b": grad_b,
            "grad_given": grad_given,
            "temperature": temperature,
            "masks_sample": flat_masks.stride(0),
            "masks_map": flat_masks.stride(1),
            "masks_pixel": flat_masks.stride(2),
            "maps_sample": flat_maps.stride(0),
            "maps_map": flat_maps.stride(1),
            "maps_pixel": flat_maps.stride(2),
            "a_sample": flat_a.stride(0),
            "a_pixel": flat_a.stride(1),
            "b_sample": flat_b.stride(0),
            "b_pixel": flat_b.stride(1),
        },
        {"HARD": hard, "P": height * width, "BLOCK": block},
        num_warps=warps,
    )
    return (grad_a, grad_b, grad_given), [launch]


def forward(
    cam_a: Tensor, cam_b: Tensor, thresholds: Tensor | None, temperature: float, hard: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs, launches = plan_forward(cam_a, cam_b, thresholds, temperature, hard)
    run(launches)
    return outputs


def backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor,
    grad_thresholds: Tensor,
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    outputs, launches = plan_backward(
        grad_terms, grad_masks, grad_maps, grad_thresholds, cam_a, cam_b, thresholds, temperature, hard
    )
    run(launches)
    return outputs
