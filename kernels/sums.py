"""Sums that programs have left in parts, finished by a launch of their own, on Triton: of parts of one result, and of
the samples of each class.

No atomics: every element of a result is added by one program, in the order of the parts or of the samples.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.launch import Launch

# Columns or elements of a program, one for each thread, samples whose labels it looks at together, and those of a class
# that it adds at a time.
BLOCK = 128
LABELS = 128
MEMBERS = 16
# Classes that a program writes the zeros of.
CLASSES = 16

_LABELS = tl.constexpr(LABELS)
_MEMBERS = tl.constexpr(MEMBERS)


@triton.jit
def sum_class(
    task,
    per_sample,
    labels,
    grad_weights,
    column,
    batch,
    classes,
    PARTS: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ADD: tl.constexpr,
):
    """Sum the class of sample `task`, in the samples' order, if that is its first one; with ADD, to what is there."""
    # per_sample [B,PARTS,WIDTH], labels [B] -> grad_weights [R,K,C], WIDTH = R*C; sums are shaped like column
    inside = column < WIDTH
    target = grad_weights + (column // C).to(tl.int64) * classes * C + column % C
    label = tl.load(labels + task)
    earlier = tl.full([_LABELS], 0, tl.int32)
    for start in range(0, task, _LABELS):
        sample = start + tl.arange(0, _LABELS)
        earlier += (tl.load(labels + sample, mask=sample < task, other=-1) == label).to(tl.int32)
    if (tl.sum(earlier) == 0) & (label >= 0) & (label < classes):
        sums = tl.full([column.shape[0]], 0, per_sample.dtype.element_ty)
        if ADD:
            sums += tl.load(target + label * C, mask=inside, other=0)
        for start in range(task * PARTS, batch * PARTS, _LABELS):
            part = start + tl.arange(0, _LABELS)
            member = tl.load(labels + part // PARTS, mask=part < batch * PARTS, other=-1) == label
            rank = tl.cumsum(member.to(tl.int32), 0)
            count = tl.max(rank)
            for first in range(1, count + 1, _MEMBERS):
                wanted = first + tl.arange(0, _MEMBERS)[:, None]
                chosen = tl.sum(tl.where(member & (rank == wanted), part, 0), 1)[:, None].to(tl.int64)
                rows = tl.load(per_sample + chosen * WIDTH + column, mask=(wanted <= count) & inside, other=0)
                sums += tl.sum(rows, 0)
        tl.store(target + label * C, sums.to(grad_weights.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["batch", "classes"], do_not_specialize_on_alignment=["labels"])
def _class_sums_kernel(
    per_sample,
    labels,
    grad_weights,
    batch,
    classes,
    PARTS: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum all classes. The first `batch` programs take a sample each: the first one of a class sums its class. The
    others take `CLASSES` classes each and write the zeros of those that the batch does not hold."""
    # per_sample [B,PARTS,WIDTH], labels [B] -> grad_weights [R,K,C]; present [CLASSES, labels at once]
    task = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if task < batch:
        sum_class(task, per_sample, labels, grad_weights, column, batch, classes, PARTS, C, WIDTH, False)
    else:
        own = (task - batch) * CLASSES + tl.arange(0, CLASSES)[:, None]
        present = tl.full([CLASSES, _LABELS], 0, tl.int32)
        for start in range(0, batch, _LABELS):
            sample = start + tl.arange(0, _LABELS)
            present |= (tl.load(labels + sample, mask=sample < batch, other=-1) == own).to(tl.int32)
        absent = tl.max(present, 1, keep_dims=True) == 0
        zeros = tl.full([CLASSES, BLOCK], 0, grad_weights.dtype.element_ty)
        target = grad_weights + (column // C).to(tl.int64) * classes * C + column % C
        tl.store(target + own.to(tl.int64) * C, zeros, mask=absent & (own < classes) & (column < WIDTH))


def class_sums(per_sample: Tensor, labels: Tensor, grad_weights: Tensor) -> Launch:
    """Plan the sum of per_sample [B,S,R,C], S parts for each sample, into every row of grad_weights [R,K,C]."""
    batch, parts, classifiers, channels = per_sample.shape
    classes = grad_weights.shape[1]
    width = classifiers * channels
    return Launch(
        _class_sums_kernel,
        (batch + triton.cdiv(classes, CLASSES), triton.cdiv(width, BLOCK)),
        {
            "per_sample": per_sample,
            "labels": labels,
            "grad_weights": grad_weights,
            "batch": batch,
            "classes": classes,
        },
        {"PARTS": parts, "C": channels, "WIDTH": width, "CLASSES": CLASSES, "BLOCK": BLOCK},
    )


@triton.jit(do_not_specialize=["count", "size"])
def _sum_parts_kernel(parts, total, count, size, BLOCK: tl.constexpr):
    # parts [count,size] -> total [size]; in registers [BLOCK]
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    values = tl.full([BLOCK], 0, parts.dtype.element_ty)
    for part in range(count):
        values += tl.load(parts + part * size + index, mask=inside, other=0)
    tl.store(total + index, values.to(total.dtype.element_ty), mask=inside)


def plan_total(parts: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, list[Launch]]:
    """Plan parts[0] + parts[1] + ... of parts [S,...], in that dtype if there are several, and the launch that adds
    them then."""
    if len(parts) == 1:
        return parts[0], []
    total = parts.new_empty(parts.shape[1:], dtype=dtype)
    arguments: dict[str, Tensor | int] = {"parts": parts, "total": total, "count": len(parts), "size": total.numel()}
    return total, [Launch(_sum_parts_kernel, (triton.cdiv(total.numel(), BLOCK),), arguments, {"BLOCK": BLOCK})]
