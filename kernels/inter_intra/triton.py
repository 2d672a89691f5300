"""inter_intra on Triton: four launches forward, three backward, none of a size that grows with more than N C.

    forward    1. inverse lengths of the complements' descriptors, and the order of their groups
               2. the mean of their unit vectors, by columns
               3. the pairs (`subgroup_similarity`), held against v + w
               4. the sums of all
    backward   1. the pairs
               2. the mean of h, by columns
               3. through x / |x| to the complements' descriptors, and the gradient of the terms

The descriptors are small beside F, and what one launch has written the next one finds in the cache.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import SHORT_NORM
from iir_fast.kernels.inter_intra.reference import Inputs, incoming
from iir_fast.kernels.launch import Launch, launched, recorded, run
from iir_fast.kernels.subgroup_similarity.reference import PLACES, new_places
from iir_fast.kernels.subgroup_similarity.triton import Pairs, order_rows, plan_gradients, plan_shares, readable

# Rows of a program that goes along them, and channels at a time.
ROWS = 4
ALONG = 256
# Rows at a time of a program that goes down them, and its channels: two sectors.
DOWN = 64
COLUMNS = 16
PARTS = 1024

_SHORT_NORM = tl.constexpr(SHORT_NORM)


@triton.jit(do_not_specialize=["N", "ordering"])
def _lengths_and_order_kernel(
    rows,
    groups,
    inverse,
    places,
    N,
    ordering,
    REPEATS: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the order, by the first `ordering` programs, and the inverse lengths, `ROWS` rows by each of the others."""
    # rows [N,C], groups [N / REPEATS] -> inverse [N], places [4, padded N]
    program = tl.program_id(0)
    if program < ordering:
        order_rows(groups, places, program, ordering, N, REPEATS)
    else:
        _inverse_lengths(rows, inverse, program - ordering, N, C, ROWS, BLOCK)


@triton.jit
def _inverse_lengths(rows, inverse, program, N, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    # rows [N,C] -> inverse [N]; in registers [ROWS, BLOCK]
    row = program.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    squares = tl.full([ROWS, BLOCK], 0, rows.dtype.element_ty)
    for start in range(0, C, BLOCK):
        channel = start + tl.arange(0, BLOCK)[None, :]
        values = tl.load(rows + row[:, None] * C + channel, mask=(row[:, None] < N) & (channel < C), other=0)
        squares += values * values
    length = tl.sqrt(tl.sum(squares, 1))
    # NaN if the sum has overflowed, where 1 / length were 0.
    length += length - length
    tl.store(inverse + row, tl.where(length <= _SHORT_NORM, 0, 1 / length), mask=row < N)


@triton.jit(do_not_specialize=["N"])
def _mean_kernel(rows, inverse, mean, N, C: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Compute the mean over rows, or over unit vectors if inverse lengths are there."""
    # rows [N,C], inverse [N] -> mean [C]; in registers [ROWS, BLOCK]
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.full([ROWS, BLOCK], 0, rows.dtype.element_ty)
    for start in range(0, N, ROWS):
        row = start + tl.arange(0, ROWS)[:, None].to(tl.int64)
        values = tl.load(rows + row * C + channel, mask=(row < N) & (channel < C), other=0)
        if inverse is not None:
            values *= tl.load(inverse + row, mask=row < N, other=0)
        total += values
    tl.store(mean + channel, tl.sum(total, 0, keep_dims=True) / N, mask=channel < C)


@triton.jit(do_not_specialize=["parts", "images"])
def _loss_kernel(
    shares,
    terms,
    loss,
    intra,
    inter,
    intra_weight: tl.float64,
    inter_weight: tl.float64,
    parts,
    images,
    COLUMN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # shares [parts], terms [images,2] -> loss, intra, inter []; in registers [BLOCK]
    dtype: tl.constexpr = loss.dtype.element_ty
    number = tl.arange(0, BLOCK)
    similarity = tl.full([BLOCK], 0, dtype)
    for start in range(0, parts, BLOCK):
        similarity += tl.load(shares + start + number, mask=start + number < parts, other=0)
    regulation = tl.full([BLOCK], 0, dtype)
    for start in range(0, images, BLOCK):
        source = terms + 2 * (start + number) + COLUMN
        regulation += tl.load(source, mask=start + number < images, other=0).to(dtype)
    of_pairs, of_terms = tl.sum(similarity), tl.sum(regulation) / tl.maximum(images, 1)
    tl.store(intra, of_terms)
    tl.store(inter, of_pairs)
    tl.store(loss, tl.full((), intra_weight, dtype) * of_terms + tl.full((), inter_weight, dtype) * of_pairs)


@triton.jit(do_not_specialize=["N", "images"])
def _through_lengths_kernel(
    grad_contrast,
    mean,
    background,
    inverse,
    grad_background,
    to_intra,
    grad_terms,
    intra_weight: tl.float64,
    N,
    images,
    COLUMN: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grad_contrast, background [N,C], mean [C], inverse [N], to_intra [] -> grad_background [N,C], grad_terms
    # [images,2]; in registers [ROWS, BLOCK]
    dtype: tl.constexpr = grad_contrast.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row[:, None] < N
    scale = tl.load(inverse + row, mask=row < N, other=0)[:, None]
    along = tl.full([ROWS, BLOCK], 0, dtype)
    for start in range(0, C, BLOCK):
        channel = start + tl.arange(0, BLOCK)[None, :]
        offset, mask = row[:, None] * C + channel, inside & (channel < C)
        gradient = tl.load(grad_contrast + offset, mask=mask, other=0) + tl.load(
            mean + channel, mask=channel < C, other=0
        )
        along += tl.load(background + offset, mask=mask, other=0).to(dtype) * scale * gradient
    product = tl.sum(along, 1)[:, None]
    for start in range(0, C, BLOCK):
        channel = start + tl.arange(0, BLOCK)[None, :]
        offset, mask = row[:, None] * C + channel, inside & (channel < C)
        gradient = tl.load(grad_contrast + offset, mask=mask, other=0) + tl.load(
            mean + channel, mask=channel < C, other=0
        )
        own = tl.load(background + offset, mask=mask, other=0).to(dtype) * scale
        result = (gradient - own * product) * scale
        tl.store(grad_background + offset, result.to(grad_background.dtype.element_ty), mask=mask)

    of_terms = tl.load(to_intra).to(dtype) * tl.full((), intra_weight, dtype) / images
    target = grad_terms + 2 * row
    tl.store(target + COLUMN, of_terms.to(grad_terms.dtype.element_ty), mask=row < images)
    tl.store(target + (1 - COLUMN), 0, mask=row < images)


def _mean(rows: Tensor, inverse: Tensor | None, mean: Tensor) -> Launch:
    count, channels = rows.shape
    arguments = {"rows": rows, "inverse": inverse, "mean": mean, "N": count}
    # Nothing is divided by a count of zero: there is no program then.
    grid = (triton.cdiv(channels, COLUMNS) if count else 0,)
    return Launch(_mean_kernel, grid, arguments, {"C": channels, "ROWS": DOWN, "BLOCK": COLUMNS})


def _along(channels: int) -> dict[str, int]:
    return {"C": channels, "ROWS": ROWS, "BLOCK": min(ALONG, triton.next_power_of_2(channels))}


def plan_forward(*arguments: Any) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """Allocate the results of `forward` and describe the launches that fill them."""
    inputs = Inputs(*arguments)
    rows, repeats = inputs.backgrounds.contiguous(), inputs.foreground.shape[1]
    count, channels = rows.shape
    mean, inverse, places = rows.new_empty(channels), rows.new_empty(count), new_places(inputs.labels, repeats)
    loss, intra, inter = (rows.new_empty(()) for _ in range(3))
    ordering = places.shape[1] // PLACES
    shares, pairs = plan_shares(Pairs(readable(inputs.foregrounds, rows.dtype), rows, inverse, mean, places))
    launches = [
        Launch(
            _lengths_and_order_kernel,
            (ordering + triton.cdiv(count, ROWS),),
            {
                "rows": rows,
                "groups": inputs.labels.contiguous(),
                "inverse": inverse,
                "places": places,
                "N": count,
                "ordering": ordering,
            },
            {"REPEATS": repeats, **_along(channels)},
        ),
        _mean(rows, inverse, mean),
        pairs,
        Launch(
            _loss_kernel,
            (1,),
            {
                "shares": shares,
                "terms": inputs.terms.contiguous(),
                "loss": loss,
                "intra": intra,
                "inter": inter,
                "intra_weight": inputs.intra_weight,
                "inter_weight": inputs.inter_weight,
                "parts": len(shares),
                "images": len(inputs.terms),
            },
            {"COLUMN": inputs.column, "BLOCK": PARTS},
        ),
    ]
    return (loss, intra, inter, mean, inverse, places), launches


def plan_backward(
    grad_loss: Tensor | None, grad_intra: Tensor | None, grad_inter: Tensor | None, *arguments: Any
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `backward` and describe the launches that fill them."""
    inputs, (mean, inverse, places) = Inputs(*arguments[:7]), arguments[7:]
    terms, foreground, background = inputs[:3]
    rows = inputs.backgrounds.contiguous()
    count, channels = rows.shape
    to_intra, intra_weight = incoming(grad_intra, grad_loss, inputs.intra_weight, mean)
    to_inter, inter_weight = incoming(grad_inter, grad_loss, inputs.inter_weight, mean)
    pairs = Pairs(readable(inputs.foregrounds, rows.dtype), rows, inverse, mean, places)
    (grad_foreground, grad_contrast), comparing = plan_gradients(to_inter, pairs, inter_weight)
    mean_gradient = mean.new_empty(channels)
    grad_terms, grad_background = terms.new_empty(terms.shape), background.new_empty(background.shape)
    launches = [
        comparing,
        _mean(grad_contrast, None, mean_gradient),
        Launch(
            _through_lengths_kernel,
            (triton.cdiv(max(count, len(terms)), ROWS),),
            {
                "grad_contrast": grad_contrast,
                "mean": mean_gradient,
                "background": rows,
                "inverse": inverse,
                "grad_background": grad_background,
                "to_intra": to_intra,
                "grad_terms": grad_terms,
                "intra_weight": intra_weight,
                "N": count,
                "images": len(terms),
            },
            {"COLUMN": inputs.column, **_along(channels)},
        ),
    ]
    return (grad_terms, grad_foreground.view(foreground.shape), grad_background), launches


forward = launched(plan_forward)


@recorded
def backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    (grad_terms, grad_foreground, grad_background), launches = plan_backward(*arguments)
    run(launches)
    return grad_terms, grad_foreground.to(arguments[4].dtype), grad_background
