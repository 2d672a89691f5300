"""What regulate's kernels make of one CAM before it meets the other: its range, its threshold.

A "plane" is one image plane of one sample, and how to read it: (first block, pointer, stride between pixels).
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
    """Pixels from `start` on; zero behind the last."""
    pixel = start + tl.arange(0, BLOCK)
    return tl.load(pointer + pixel * stride, mask=pixel < P, other=0).to(dtype)


@triton.jit
def read_plane(pointer, stride, parts, part_stride, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """A plane: the sum of `parts` of them, which only one that is held may have more than one of."""
    held = _load(pointer, stride, 0, dtype, P, BLOCK)
    for part in range(1, parts):
        held += _load(pointer + part * part_stride, stride, 0, dtype, P, BLOCK)
    return held, pointer, stride


@triton.jit
def read_block(plane, start, P: tl.constexpr, BLOCK: tl.constexpr):
    """Pixels from `start` on: the first block if that is the whole plane, else read again."""
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
def offset_of(pooled, weights, bias, dtype: tl.constexpr, C: tl.constexpr):
    """The offset of a threshold: pooled [C] times weights [C], plus a bias."""
    total = tl.full([_CHANNELS], 0, dtype)
    for start in range(0, C, _CHANNELS):
        channel = start + tl.arange(0, _CHANNELS)
        values = tl.load(pooled + channel, mask=channel < C, other=0).to(dtype)
        total += values * tl.load(weights + channel, mask=channel < C, other=0).to(dtype)
    return tl.sum(total) + tl.load(bias).to(dtype)


@triton.jit
def prepare(cam, given, offset, number, dtype: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """All that a CAM needs before it meets the other: its plane, minimum, maximum, divisor and threshold; the mean, and
    the threshold's derivatives by it and by what was given."""
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
