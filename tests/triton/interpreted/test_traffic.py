"""Every byte that a training step's kernels touch, counted."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from benchmarks.counting import counting
from benchmarks.examples import Shape
from benchmarks.traffic import faults, inference, step
from iir_fast.kernels.launch import Launch, run


@pytest.mark.parametrize(
    "shape",
    [
        Shape(4, 512, 7, torch.bfloat16, False),
        Shape(2, 512, 14, torch.bfloat16, True),
        Shape(2, 128, 28, torch.bfloat16, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("branches", [False, True], ids=["shared", "branches"])
def test_a_step_moves_little_more_than_its_floor(shape, branches):
    of_step, others = step(shape, branches), inference(shape)
    assert {operator.name.removesuffix("_backward") for operator in of_step.operators} == {
        "dual_cam",
        "inter_intra",
        "between the operators",
    }
    found = faults(shape, of_step, others)
    assert not found, "\n".join(found)


@triton.jit
def shift_kernel(source, target, count, BLOCK: tl.constexpr):
    """Adds neighbours: everything but the ends is read twice."""
    i = tl.arange(0, BLOCK)
    inside = i < count - 1
    tl.store(target + i, tl.load(source + i, mask=inside) + tl.load(source + i + 1, mask=inside), mask=inside)


def test_masked_lanes_do_not_count_and_repeated_ones_do():
    source, target = torch.arange(10.0), torch.empty(9)
    with counting() as launches:
        run([Launch(shift_kernel, (1,), {"source": source, "target": target, "count": 10}, {"BLOCK": 16})])
    assert torch.equal(target, source[1:] + source[:-1])
    (launch,) = launches
    assert launch.kernel == "shift_kernel"
    assert launch.bytes == 4 * (9 + 9 + 9)
    assert launch.floor == 4 * (10 + 9)
