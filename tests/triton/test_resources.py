"""What the compiler makes of the kernels for GPUs that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

import triton

from benchmarks.compiled import TARGETS, Resources, compile_launch, load_widths, occupancy
from benchmarks.examples import Shape, examples
from benchmarks.resources import SHAPES, Compiled, compile_all, render, widest_load

OPERATORS = ["label_cam", "regulate", "masked_pool", "subgroup_similarity", "evidence_map", "dual_cam", "inter_intra"]
# Every dtype, side, number of channels, layout and target once at least; of all their combinations
# `python -m benchmarks.resources` takes care, which CI runs too.
FEW = {
    Shape(64, 512, 7, torch.float32, False): ["sm_80", "gfx942"],
    Shape(64, 1280, 14, torch.bfloat16, True): ["sm_90"],
    Shape(64, 2048, 28, torch.float16, False): ["sm_100"],
}


@pytest.fixture(scope="module")
def compiled() -> list[Compiled]:
    return [each for shape, targets in FEW.items() for each in compile_all([shape], targets)]


@pytest.mark.slow
def test_every_variant_keeps_the_limits(compiled):
    faults = [fault for each in compiled for fault in each.faults()]
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_every_operator_was_looked_at_on_every_target(compiled):
    calls = {(each.call.split()[0], each.target) for each in compiled}
    assert calls == {(operator, target) for operator in OPERATORS for target in TARGETS}
    assert FEW.keys() < set(SHAPES)
    reading = {each.call.split()[0] for each in compiled if each.features_width}
    assert reading == {"label_cam", "masked_pool", "evidence_map", "dual_cam"}


SOUND = Compiled(
    "label_cam forward", "kernel", SHAPES[0], "sm_90", "a", 4, Resources(64, 1024, 0, {"features": (16,)}, 0)
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spilled": 8}, "spills 8"),
        ({"atomics": 1}, "has 1 atomics"),
        ({"registers": 72}, "leaves 44% occupancy"),
        ({"shared": 65536}, "leaves 19% occupancy"),
        ({"widths": {"features": (1, 16)}}, "loads F by 1 bytes, not 2"),
    ],
)
def test_every_limit_is_noticed(change, words):
    (fault,) = replace(SOUND, resources=replace(SOUND.resources, **change)).faults()
    assert words in fault
    assert not SOUND.faults()


def test_occupancy_of_an_h100():
    assert occupancy(Resources(32, 0, 0, {}, 0), 4) == 1.0
    assert occupancy(Resources(33, 0, 0, {}, 0), 4) == 0.75
    assert occupancy(Resources(255, 0, 0, {}, 0), 8) == 0.125
    assert occupancy(Resources(32, 0, 0, {}, 0), 1) == 0.5


@pytest.mark.parametrize(
    ("side", "dtype", "channels_last", "width"),
    [
        (7, torch.bfloat16, False, 2),
        (7, torch.float32, False, 4),
        (14, torch.bfloat16, False, 8),
        (14, torch.float32, False, 16),
        (28, torch.float16, False, 16),
        (7, torch.bfloat16, True, 16),
    ],
)
def test_the_widest_load_that_a_row_allows(side, dtype, channels_last, width):
    assert widest_load(Shape(2, 512, side, dtype, channels_last)) == width


def test_loads_are_followed_back_to_their_arguments():
    ptx = """
        ld.param.b64 	%rd1, [kernel_param_0];
        ld.param.b64 	%rd2, [kernel_param_2];
        ld.param.b32 	%r9, [kernel_param_1];
        mad.wide.s32 	%rd3, %r9, 2, %rd1;
    $L__BB0_1:
        @%p2 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd3 + 0 ];
        ld.global.L1::evict_last.b16 { %rs1 }, [ %rd5 + 16 ];
        cp.async.cg.shared.global [ %r7 + 0 ], [ %rd6 + 0 ], 0x10, %r8;
        ld.global.v2.b64 { %rd7, %rd8 }, [ %rd2 ];
        add.s64 	%rd5, %rd3, 64;
        add.s64 	%rd6, %rd2, 64;
        ld.shared.b32 	%r5, [%r7];
    """
    assert load_widths(ptx, {0: "features", 2: "weights"}) == {"features": (2, 16), "weights": (16,)}


def test_the_table_has_a_row_for_each_code():
    other = replace(SOUND, variant="b", shape=SHAPES[1], resources=replace(SOUND.resources, registers=48))
    third = replace(SOUND, call="regulate forward", variant="c")
    rows = [line for line in render([SOUND, other, third]).splitlines() if line.startswith("|")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| label_cam forward", "| regulate forward"]
    assert " | 48 to 64 | " in rows[0]


def test_to_compile_leaves_the_driver_of_the_process_alone():
    launch = examples(SHAPES[0], "meta")[0].plan()[0]
    before = triton.runtime.driver._active
    assert compile_launch(launch, "sm_90").metadata.target.arch == 90
    assert triton.runtime.driver._active is before
    with pytest.raises(TypeError):
        compile_launch(replace(launch, constants={}), "sm_90")
    assert triton.runtime.driver._active is before
