"""regulate on one sample, on Triton: every pointer comes at the sample.

A "plane" is one image plane of the sample, and how to read it: (first block, pointer, stride between pixels).
"""

from __future__ import annotations

import triton
import triton.language as tl

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN

_FLAT_RELATIVE = tl.constexpr(FLAT_RELATIVE)
_FLAT_ABSOLUTE = tl.constexpr(FLAT_ABSOLUTE)
_MEAN_MARGIN = tl.constexpr(MEAN_MARGIN)
_CHANNELS = tl.constexpr(256)


@triton.jit
def _load(pointer, stride, start, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Load pixels from `start` on; zero behind the last."""
    pixel = start + tl.arange(0, BLOCK)
    return tl.load(pointer + pixel * stride, mask=pixel < P, other=0).to(dtype)


@triton.jit
def read_plane(pointer, stride, parts, part_stride, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Read a plane: the sum of `parts` of them, which only one that is held may have more than one of."""
    held = _load(pointer, stride, 0, dtype, P, BLOCK)
    for part in range(1, parts):
        held += _load(pointer + part * part_stride, stride, 0, dtype, P, BLOCK)
    return held, pointer, stride


@triton.jit
def read_block(plane, start, P: tl.constexpr, BLOCK: tl.constexpr):
    """Read pixels from `start` on: the first block if that is the whole plane, else read again."""
    held, pointer, stride = plane
    if P <= BLOCK:
        return held
    else:
        return _load(pointer, stride, start, held.dtype, P, BLOCK)


@triton.jit
def normalize(values, low, span):
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
def offset_of(pooled, weights, bias, dtype: tl.constexpr, C: tl.constexpr):
    """Compute the offset of a threshold: pooled [C] times weights [C], plus a bias."""
    total = tl.full([_CHANNELS], 0, dtype)
    for start in range(0, C, _CHANNELS):
        channel = start + tl.arange(0, _CHANNELS)
        values = tl.load(pooled + channel, mask=channel < C, other=0).to(dtype)
        total += values * tl.load(weights + channel, mask=channel < C, other=0).to(dtype)
    return tl.sum(total) + tl.load(bias).to(dtype)


@triton.jit
def prepare(cam, given, offset, number, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Prepare all that a CAM needs before it meets the other: its plane, minimum, maximum, divisor and threshold; the
    mean, and the threshold's derivatives by it and by what was given."""
    low = tl.full((), float("inf"), dtype)
    high = tl.full((), float("-inf"), dtype)
    flaw = tl.full((), 0, dtype)
    for start in range(0, P, BLOCK):
        values = read_block(cam, start, P, BLOCK)
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
        total += tl.sum(tl.where(inside, normalize(read_block(cam, start, P, BLOCK), low, span), 0))
    mean = total / P
    if offset is not None:
        cut, to_mean, to_offset = _move(mean, offset)
        return cam, low, high, span, cut, mean, to_mean, to_offset
    return cam, low, high, span, mean, mean, one, zero


@triton.jit
def _masked(cam, start, tau, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of a prepared CAM: its values, normalized map and mask."""
    plane, low, _high, span, cut, _mean, _to_mean, _to_given = cam
    values = read_block(plane, start, P, BLOCK)
    normalized = normalize(values, low, span)
    return values, normalized, tl.sigmoid((normalized - cut) / tau)


@triton.jit
def regulate_sample(
    cam_a,
    cam_b,
    given,
    offsets,
    pooled_a,
    pooled_b,
    offset_weights,
    offset_biases,
    cams,
    terms,
    masks,
    maps,
    thresholds,
    temperature,
    a_pixel,
    b_pixel,
    parts,
    part_stride,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    """Regulate one sample: forward. CAMs in `parts` that lie `part_stride` apart are added, and written to `cams`, if
    there."""
    # cam_a, cam_b parts x [P], given, offsets [2], pooled_a, pooled_b [C], offset_weights [2,C] -> cams, masks, maps
    # [2,P], terms, thresholds [2]; in registers [BLOCK] of each map
    dtype: tl.constexpr = maps.dtype.element_ty
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offset_weights is not None:
        offset_a = offset_of(pooled_a, offset_weights, offset_biases, dtype, C)
        offset_b = offset_of(pooled_b, offset_weights + C, offset_biases + 1, dtype, C)
        tl.store(offsets, offset_a)
        tl.store(offsets + 1, offset_b)
    elif offsets is not None:
        offset_a, offset_b = tl.load(offsets).to(dtype), tl.load(offsets + 1).to(dtype)
    plane_a = read_plane(cam_a, a_pixel, parts, part_stride, dtype, P, BLOCK)
    plane_b = read_plane(cam_b, b_pixel, parts, part_stride, dtype, P, BLOCK)
    if cams is not None:
        pixel = tl.arange(0, BLOCK)
        tl.store(cams + pixel, plane_a[0], mask=pixel < P)
        tl.store(cams + P + pixel, plane_b[0], mask=pixel < P)
    a = prepare(plane_a, given, offset_a, 0, dtype, P, BLOCK)
    b = prepare(plane_b, given, offset_b, 1, dtype, P, BLOCK)
    tl.store(thresholds, a[4])
    tl.store(thresholds + 1, b[4])
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
    tl.store(terms, dual / P)
    tl.store(terms + 1, agreement / P)


@triton.jit
def _z_and_q(own, other, incoming, start, tau, MAPS: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Block of one CAM: its values, normalized map, z, and q without the threshold's part."""
    # all [BLOCK]
    grad_mask, grad_map, dual, agreement = incoming
    values, map_x, mask = _masked(own, start, tau, P, BLOCK)
    _values, map_y, mask_y = _masked(other, start, tau, P, BLOCK)
    apart = map_x - map_y
    h = dual * (mask_y * map_x * map_y - (1 - mask_y) * apart * apart) + agreement * (1 - 2 * mask_y)
    z = (read_block(grad_mask, start, P, BLOCK) + h) * mask * (1 - mask) / tau
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
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of the CAM `own`, both being prepared. Returns that of what was given of its threshold."""
    # gradient [P]; in registers [BLOCK]
    _plane, low, high, span, _cut, mean, to_mean, to_given = own
    dtype: tl.constexpr = low.dtype
    sum_z = tl.full((), 0, dtype)
    through_low = tl.full((), 0, dtype)
    through_high = tl.full((), 0, dtype)
    at_low = tl.full((), 0, tl.int32)
    at_high = tl.full((), 0, tl.int32)
    for start in range(0, P, BLOCK):
        inside = start + tl.arange(0, BLOCK) < P
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, MAPS, P, BLOCK)
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
        values, normalized, z, q = _z_and_q(own, other, incoming, start, tau, MAPS, P, BLOCK)
        result = (q + to_all) / span
        result += tl.where(values == low, to_lowest, 0) - tl.where(values == high, to_highest, 0)
        tl.store(gradient + pixel, result.to(gradient.dtype.element_ty), mask=pixel < P)
    return e * to_given


@triton.jit
def differentiate_sample(
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
    sample,
    temperature,
    masks_map,
    masks_pixel,
    maps_map,
    maps_pixel,
    a_pixel,
    b_pixel,
    parts,
    part_stride,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Differentiate one sample; the gradient of the masks is the sum of `parts`. What has two numbers to a sample comes
    whole."""
    # grad_terms, grad_thresholds, given, offsets [B,2], grad_masks parts x [2,P], grad_maps [2,P], cam_a, cam_b [P]
    # -> grad_a, grad_b [P], grad_cuts [B,2]; in registers [BLOCK] of each map
    dtype: tl.constexpr = grad_masks.dtype.element_ty
    MAPS: tl.constexpr = grad_maps is not None
    tau = tl.full((), temperature, dtype)
    offset_a, offset_b = None, None
    if offsets is not None:
        offset_a, offset_b = tl.load(offsets + 2 * sample).to(dtype), tl.load(offsets + 2 * sample + 1).to(dtype)
    plane_a = read_plane(cam_a, a_pixel, 1, 0, dtype, P, BLOCK)
    plane_b = read_plane(cam_b, b_pixel, 1, 0, dtype, P, BLOCK)
    a = prepare(plane_a, given, offset_a, 2 * sample, dtype, P, BLOCK)
    b = prepare(plane_b, given, offset_b, 2 * sample + 1, dtype, P, BLOCK)
    grad_mask_a = read_plane(grad_masks, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_mask_b = read_plane(grad_masks + masks_map, masks_pixel, parts, part_stride, dtype, P, BLOCK)
    grad_map_a, grad_map_b = grad_mask_a, grad_mask_b
    if MAPS:
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
    to_given_a = _write_gradient(a, b, to_a, to_cut_a, tau, grad_a, MAPS, P, BLOCK)
    to_given_b = _write_gradient(b, a, to_b, to_cut_b, tau, grad_b, MAPS, P, BLOCK)
    if (given is not None) or (offsets is not None):
        tl.store(grad_cuts + 2 * sample, to_given_a.to(grad_cuts.dtype.element_ty))
        tl.store(grad_cuts + 2 * sample + 1, to_given_b.to(grad_cuts.dtype.element_ty))
