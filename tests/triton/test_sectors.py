"""How the compiled kernels are judged once a PTX interpreter has run them; here something else stands in for it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.examples import Shape, examples
from benchmarks.sectors import emulated, faults
from iir_fast.kernels.launch import Launch

SHAPE = Shape(2, 8, 7, torch.float32, False)
EXAMPLE = examples(SHAPE)[0]
RIGHT = EXAMPLE.expected()
ONCE = {"_label_cam_forward_kernel": {"features": (100, 100)}}


def test_right_results_that_read_everything_once_have_no_fault():
    assert not faults(EXAMPLE, SHAPE, RIGHT, ONCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_there_are_calls_for_features_of_every_dtype(dtype):
    # On the CPU, as they are emulated: no kernel of the CPU takes float16.
    with emulated(SimpleNamespace(launch=lambda *_, **__: SimpleNamespace(arg={}))) as counted:
        for example in examples(Shape(2, 8, 7, dtype, False)):
            counted.clear()
            example.run()
            assert counted, example


@pytest.mark.parametrize("value", [1e3, float("nan")], ids=["wrong", "not written"])
def test_a_wrong_element_is_noticed(value):
    outputs = tuple(output.clone() for output in RIGHT)
    outputs[1][1, 3] = value
    (fault,) = faults(EXAMPLE, SHAPE, outputs, ONCE)
    assert "result 1 is off by" in fault


def test_sectors_that_are_read_again_are_noticed():
    (fault,) = faults(EXAMPLE, SHAPE, RIGHT, {"_label_cam_forward_kernel": {"features": (116, 100)}})
    assert "reads sectors of F 1.160 times" in fault


def test_launches_go_to_the_tool_whole():
    calls = []

    def launch(kernel, arguments, constants, grid, **options):
        calls.append((grid, options))
        counts = {
            "features": Counter(ld_sectors=30, ld_unique_sectors=10),
            "second": Counter(ld_unique_sectors=15),
            "out": Counter(st_sectors=4),
        }
        return SimpleNamespace(arg=counts)

    kernel = SimpleNamespace(fn=SimpleNamespace(__name__="some_kernel"))
    described = Launch(kernel, (3,), {"features": torch.zeros(4)}, num_warps=8)
    with emulated(SimpleNamespace(launch=launch)) as counted:
        described()
    assert counted == {"some_kernel": {"features": (30, 25)}}
    ((grid, options),) = calls
    assert grid == (3,)
    assert options == described.options
