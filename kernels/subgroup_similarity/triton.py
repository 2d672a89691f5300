"""subgroup_similarity on Triton: two launches forward, two backward; a program holds a few whole rows in registers.

Rows are visited in the order of their groups, so the partners of neighbouring rows are one range of rows. The first
launch finds that order by counting: N^2 comparisons of integers, little beside the C products of every pair, in
place of a sort and its launches. In the second a program reads ROWS rows, lets them meet each
other, then reads the rest of their range, one row after another: work is proportional to the pairs, nothing of size
[N,N] exists, and the descriptors stay where they are. No tl.dot: a group is a handful of rows, and its tiles would be
mostly padding. A large group costs 2 C / ROWS elements read per ordered pair (half of them forward), mostly from L2.

With u, v the unit vectors of a row's foreground f and background g and cos_i = u_i.v_i, the room's docstring becomes
    a_ij = e_i + e_j - 2 u_i.u_j,   e_i = cos_i + (|u_i|^2 - |v_i|^2) / 2   (lengths are 1, or 0 for a short vector)
and with r_i = sum_j s_ij and p_i = sum_j s_ij u_j, the way through x / |x| included,
    df_i = (2 r_i (v_i - cos_i u_i) - 4 (p_i - (u_i.p_i) u_i)) / |f_i|
    dg_i =  2 r_i (u_i - cos_i v_i) / |g_i|
so a row that is met is read once, for its similarities and for p alike.

Forward: the loss is symmetric, so rows meet only those behind them. Backward: rows meet all others of their group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM, accumulation_dtype
from iir_fast.kernels.launch import Launch, recorded, run
from iir_fast.kernels.subgroup_similarity.reference import PLACES, new_places

# Rows of a program, two samples' under both classifiers, and channels of a warp: what a thread has of the rows fits 64
# registers, forward u, backward u, v and p. Of rows longer than MAX_WARPS take there are fewer.
ROWS = 4
FORWARD_CHANNELS, BACKWARD_CHANNELS = 128, 32
MAX_WARPS = 16

_SHORT_NORM = tl.constexpr(SHORT_NORM)
_PLACES = tl.constexpr(PLACES)


@triton.jit
def _rows(matrix, inverse, mean, stride, row, inside, C: tl.constexpr, BLOCK: tl.constexpr):
    """Load rows x of a matrix [N,C], zero where there is none; x / |x| + mean with inverse lengths and a mean."""
    channel = tl.arange(0, BLOCK)
    mask = inside[:, None] & (channel < C)[None, :]
    values = tl.load(matrix + row[:, None].to(tl.int64) * stride + channel[None, :], mask=mask, other=0)
    if mean is not None:
        scale = tl.load(inverse + row, mask=inside, other=0)
        values = values * scale[:, None] + tl.load(mean + channel, mask=channel < C, other=0)[None, :]
    return values


@triton.jit
def _row(matrix, inverse, mean, stride, row, C: tl.constexpr, BLOCK: tl.constexpr):
    """Load one row of them."""
    channel = tl.arange(0, BLOCK)
    values = tl.load(matrix + row.to(tl.int64) * stride + channel, mask=channel < C, other=0)
    if mean is not None:
        values = values * tl.load(inverse + row) + tl.load(mean + channel, mask=channel < C, other=0)
    return values


@triton.jit
def _inverse(squared_norm):
    """Compute 1 / |x|; 0 for a vector that is too short to have a direction, NaN for a square that overflowed."""
    norm = tl.sqrt(squared_norm)
    norm += norm - norm
    return tl.where(norm <= _SHORT_NORM, 0, 1 / norm)


@triton.jit
def _contrast(f, g):
    """Compute 1/|f|, 1/|g| and e of two vectors, or of each row of two matrices."""
    axis: tl.constexpr = len(f.shape) - 1
    f_inverse, g_inverse = _inverse(tl.sum(f * f, axis)), _inverse(tl.sum(g * g, axis))
    lengths = (f_inverse > 0).to(f.dtype) - (g_inverse > 0).to(f.dtype)
    return f_inverse, g_inverse, tl.sum(f * g, axis) * f_inverse * g_inverse + lengths / 2


@triton.jit
def _pick(rows, j):
    """Row j, out of the registers."""
    return tl.sum(tl.where((tl.arange(0, rows.shape[0]) == j)[:, None], rows, 0), 0)


@triton.jit
def _softplus(x):
    return tl.maximum(x, 0) + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def order_rows(groups, places, program, programs, N, REPEATS: tl.constexpr):
    """Write what `new_places` says, of one program's rows. Places behind the last row belong to no group: whoever reads
    a few places at once needs no mask."""
    # groups [N / REPEATS] -> places [4, padded N]; row, own [places at once], same [other, row]
    begin = program * _PLACES
    row = begin + tl.arange(0, _PLACES)
    own = tl.load(groups + row // REPEATS, mask=row < N, other=0)
    smaller = tl.full([_PLACES], 0, tl.int32)
    members = tl.full([_PLACES], 0, tl.int32)
    earlier = tl.full([_PLACES], 0, tl.int32)
    for start in range(0, N, _PLACES):
        other = start + tl.arange(0, _PLACES)
        group = own
        if start != begin:
            group = tl.load(groups + other // REPEATS, mask=other < N, other=0)
        exists = (other < N)[:, None]
        same = exists & (group[:, None] == own[None, :])
        smaller += tl.sum((exists & (group[:, None] < own[None, :])).to(tl.int32), 0)
        members += tl.sum(same.to(tl.int32), 0)
        earlier += tl.sum((same & (other[:, None] < row[None, :])).to(tl.int32), 0)
    place = tl.where(row < N, smaller + earlier, row)
    size = programs * _PLACES
    tl.store(places + place, tl.where(row < N, row, 0))
    tl.store(places + size + place, tl.where(row < N, smaller, N))
    tl.store(places + 2 * size + place, tl.where(row < N, smaller + members, 0))
    pairs = tl.sum(tl.where(row < N, earlier, 0))
    tl.store(places + 3 * size + row, tl.where(row == begin, pairs, 0))


@triton.jit(do_not_specialize=["N"])
def _order_kernel(groups, places, N, REPEATS: tl.constexpr):
    order_rows(groups, places, tl.program_id(0), tl.num_programs(0), N, REPEATS)


@triton.jit
def _count(places, N, dtype: tl.constexpr):
    """Count the unordered pairs in all, at least 1."""
    programs = tl.cdiv(N, _PLACES)
    total = tl.full([_PLACES], 0, tl.int64)
    for start in range(0, programs, _PLACES):
        part = start + tl.arange(0, _PLACES)
        total += tl.load(places + (3 * programs + part) * _PLACES, mask=part < programs, other=0)
    return tl.maximum(tl.sum(total), 1).to(dtype)


@triton.jit(do_not_specialize=["N"])
def _similarity_forward_kernel(
    foreground,
    background,
    inverse,
    mean,
    places,
    shares,
    N,
    f_stride,
    g_stride,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    # foreground, background [N,C], inverse [N], mean [C], places [4, padded N] -> shares [programs]
    # u, g [ROWS, BLOCK], e, a [ROWS], other_f, other_g [BLOCK]
    begin = tl.program_id(0) * ROWS
    lane = tl.arange(0, ROWS)
    position = begin + lane
    inside = position < N
    dtype: tl.constexpr = foreground.dtype.element_ty
    last = places + 2 * tl.cdiv(N, _PLACES) * _PLACES
    row = tl.load(places + position)
    stop = tl.load(last + position)
    u = _rows(foreground, None, None, f_stride, row, inside, C, BLOCK)
    g = _rows(background, inverse, mean, g_stride, row, inside, C, BLOCK)
    f_inverse, _g_inverse, e = _contrast(u, g)
    u *= f_inverse[:, None]

    total = tl.full([ROWS], 0, dtype)
    for j in tl.static_range(ROWS):
        other = begin + j
        other_e = tl.sum(tl.where(lane == j, e, 0))
        a = e + other_e - 2 * tl.sum(u * _pick(u, j)[None, :], 1)
        total += tl.where((other > position) & (other < stop), _softplus(a), 0)
    # What could be computed before the loop would wait in registers that are not there.
    for other in tl.range(begin + ROWS, tl.max(stop), disable_licm=True):
        other_row = tl.load(places + other)
        other_f = _row(foreground, None, None, f_stride, other_row, C, BLOCK)
        other_g = _row(background, inverse, mean, g_stride, other_row, C, BLOCK)
        other_inverse, _other_g_inverse, other_e = _contrast(other_f, other_g)
        a = e + other_e - 2 * other_inverse * tl.sum(u * other_f[None, :], 1)
        total += tl.where(other < stop, _softplus(a), 0)
    tl.store(shares + tl.program_id(0), tl.sum(total) / _count(places, N, dtype))


@triton.jit(do_not_specialize=["N"])
def _similarity_backward_kernel(
    grad_inter,
    foreground,
    background,
    inverse,
    mean,
    places,
    grad_foreground,
    grad_background,
    weight: tl.float64,
    N,
    f_stride,
    g_stride,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    # grad_inter [], foreground, background [N,C], inverse [N], mean [C], places [4, padded N]
    # -> grad_foreground, grad_background [N,C]; u, g, v, p [ROWS, BLOCK], e, r, a, s [ROWS], other_f, other_g [BLOCK]
    begin = tl.program_id(0) * ROWS
    lane = tl.arange(0, ROWS)
    position = begin + lane
    inside = position < N
    dtype: tl.constexpr = foreground.dtype.element_ty
    first = places + tl.cdiv(N, _PLACES) * _PLACES
    row = tl.load(places + position)
    start = tl.load(first + position)
    stop = tl.load(first + tl.cdiv(N, _PLACES) * _PLACES + position)
    u = _rows(foreground, None, None, f_stride, row, inside, C, BLOCK)
    g = _rows(background, inverse, mean, g_stride, row, inside, C, BLOCK)
    f_inverse, g_inverse, e = _contrast(u, g)
    u *= f_inverse[:, None]
    v = g * g_inverse[:, None]

    r = tl.full([ROWS], 0, dtype)
    p = tl.full([ROWS, BLOCK], 0, dtype)
    for j in range(ROWS):
        other_u = _pick(u, j)
        other_e = tl.sum(tl.where(lane == j, e, 0))
        a = e + other_e - 2 * tl.sum(u * other_u[None, :], 1)
        other_start = tl.sum(tl.where(lane == j, start, 0))
        s = tl.where((start == other_start) & (lane != j), tl.sigmoid(a), 0)
        r += s
        p += s[:, None] * other_u[None, :]
    lowest, end = tl.min(start), tl.max(stop)
    for step in tl.range(0, begin - lowest + tl.maximum(end - begin - ROWS, 0), disable_licm=True):
        # Behind the program's own rows the range goes on after them.
        other = lowest + step
        other += tl.where(other >= begin, ROWS, 0)
        other_row = tl.load(places + other)
        other_f = _row(foreground, None, None, f_stride, other_row, C, BLOCK)
        other_g = _row(background, inverse, mean, g_stride, other_row, C, BLOCK)
        other_inverse, _other_g_inverse, other_e = _contrast(other_f, other_g)
        a = e + other_e - 2 * other_inverse * tl.sum(u * other_f[None, :], 1)
        s = tl.where(start == tl.load(first + other), tl.sigmoid(a), 0)
        r += s
        p += (s * other_inverse)[:, None] * other_f[None, :]

    scale = tl.load(grad_inter).to(dtype) * tl.full((), weight, dtype) / _count(places, N, dtype)
    k = tl.sum(u * p, 1)
    cosine = tl.sum(u * v, 1)
    df = (scale * f_inverse)[:, None] * (r[:, None] * v - 2 * p + (2 * k - r * cosine)[:, None] * u)
    dg = (scale * g_inverse * r)[:, None] * (u - cosine[:, None] * v)
    channel = tl.arange(0, BLOCK)
    mask = inside[:, None] & (channel < C)[None, :]
    offset = row[:, None].to(tl.int64) * C + channel[None, :]
    tl.store(grad_foreground + offset, df, mask=mask)
    tl.store(grad_background + offset, dg, mask=mask)


def readable(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the matrix itself if it has that dtype and its channels lie side by side, else such a copy."""
    matrix = matrix.to(dtype)
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def _blocking(channels: int, channels_of_warp: int) -> tuple[dict[str, int], int]:
    """Choose the constants of a kernel whose warps take so many channels, and the warps of a program."""
    block = max(32, triton.next_power_of_2(channels))
    rows = max(1, min(ROWS, ROWS * MAX_WARPS * channels_of_warp // block))
    return {"C": channels, "BLOCK": block, "ROWS": rows}, max(1, min(MAX_WARPS, block // channels_of_warp))


def _order(groups: Tensor) -> tuple[Tensor, Launch]:
    places = new_places(groups)
    arguments: dict[str, Tensor | int] = {"groups": groups.contiguous(), "places": places, "N": len(groups)}
    return places, Launch(_order_kernel, (places.shape[1] // PLACES,), arguments, {"REPEATS": 1})


class Pairs(NamedTuple):
    """The rows that are compared, all in one dtype: foregrounds, and what they are held against."""

    foreground: Tensor
    background: Tensor
    inverse: Tensor | None
    """Inverse lengths [N] of background, if that is to be x / |x| + mean."""
    mean: Tensor | None
    """[C]"""
    places: Tensor

    @classmethod
    def of(cls, foreground: Tensor, background: Tensor, places: Tensor) -> Pairs:
        """Take any two matrices [N,C], as they are."""
        dtype = accumulation_dtype(foreground, background)
        return cls(readable(foreground, dtype), readable(background, dtype), None, None, places)

    def launch(self, kernel: Any, channels_of_warp: int, given: dict[str, Any], results: dict[str, Any]) -> Launch:
        """Make the launch of a kernel that has these arguments besides."""
        count, channels = self.foreground.shape
        constants, warps = _blocking(channels, channels_of_warp)
        arguments = {**given, **self._asdict(), **results, "N": count}
        arguments |= {"f_stride": self.foreground.stride(0), "g_stride": self.background.stride(0)}
        return Launch(kernel, (triton.cdiv(count, constants["ROWS"]),), arguments, constants, num_warps=warps)


def plan_shares(pairs: Pairs) -> tuple[Tensor, Launch]:
    """Allocate the programs' shares of the loss and describe the launch that fills them."""
    count, channels = pairs.foreground.shape
    constants, _ = _blocking(channels, FORWARD_CHANNELS)
    shares = pairs.foreground.new_empty(triton.cdiv(count, constants["ROWS"]))
    return shares, pairs.launch(_similarity_forward_kernel, FORWARD_CHANNELS, {}, {"shares": shares})


def plan_gradients(grad_inter: Tensor, pairs: Pairs, weight: float = 1.0) -> tuple[tuple[Tensor, Tensor], Launch]:
    """Allocate the gradients of both matrices and describe the launch that fills them; `weight` is multiplied with
    `grad_inter`."""
    shape = pairs.foreground.shape
    gradients = pairs.foreground.new_empty(shape), pairs.foreground.new_empty(shape)
    results = {"grad_foreground": gradients[0], "grad_background": gradients[1], "weight": weight}
    given = {"grad_inter": grad_inter}
    return gradients, pairs.launch(_similarity_backward_kernel, BACKWARD_CHANNELS, given, results)


def plan_forward(foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Tensor, list[Launch]]:
    """Allocate the programs' shares of the loss and describe the launches that fill them."""
    places, ordering = _order(groups)
    shares, launch = plan_shares(Pairs.of(foreground, background, places))
    return shares, [ordering, launch]


def plan_backward(
    grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor
) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Allocate both gradients in the accumulation dtype and describe the launches that fill them."""
    places, ordering = _order(groups)
    gradients, launch = plan_gradients(grad_inter, Pairs.of(foreground, background, places))
    return gradients, [ordering, launch]


@recorded
def forward(foreground: Tensor, background: Tensor, groups: Tensor) -> Tensor:
    shares, launches = plan_forward(foreground, background, groups)
    run(launches)
    return shares.sum()


@recorded
def backward(grad_inter: Tensor, foreground: Tensor, background: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    (grad_foreground, grad_background), launches = plan_backward(grad_inter, foreground, background, groups)
    run(launches)
    return grad_foreground.to(foreground.dtype), grad_background.to(background.dtype)
