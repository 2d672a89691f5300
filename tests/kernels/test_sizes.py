"""Every operator at the ends of what it takes: sizes of 1, of 16, maps of few pixels, one class or many, odd addresses.

Triton compiles other code for a size of 1, for multiples of 16 and for addresses that are no multiples of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from iir_fast import functional

LABELS = {
    "mixed": lambda count, classes: torch.arange(count).mul(7).add(1) % classes,
    "equal": lambda count, classes: torch.full((count,), classes - 1),
    "different": lambda count, classes: torch.arange(count).flip(0),
}


@dataclass(frozen=True)
class Sizes:
    """By the letters of the operators' docstrings."""

    B: int = 3
    C: int = 5
    H: int = 2
    W: int = 3
    K: int = 4
    R: int = 2
    N: int = 6
    labels: str = "mixed"


Random = Callable[..., Tensor]
CALLS: dict[str, tuple[str, Callable[[Sizes, Random], list[Tensor]]]] = {
    "label_cam": (
        "BCHWKR",
        lambda s, random: [random(s.B, s.C, s.H, s.W), random(s.R, s.K, s.C, seed=1)],
    ),
    "regulate": ("BHW", lambda s, random: [random(s.B, s.H, s.W), random(s.B, s.H, s.W, seed=1)]),
    "regulate-given_thresholds": (
        "BHW",
        lambda s, random: [
            random(s.B, s.H, s.W),
            random(s.B, s.H, s.W, seed=1),
            torch.sigmoid(random(s.B, 2, seed=2)),
        ],
    ),
    "masked_pool": (
        "BCHWR",
        lambda s, random: [random(s.B, s.C, s.H, s.W), torch.sigmoid(random(s.B, s.R, s.H, s.W, seed=1))],
    ),
    "subgroup_similarity": ("NC", lambda s, random: [random(s.N, s.C), random(s.N, s.C, seed=1)]),
    "dual_cam": (
        "BCHWK",
        lambda s, random: [random(s.B, s.C, s.H, s.W), random(2, s.K, s.C, seed=1), random(2, s.K, seed=2)],
    ),
    "inter_intra": (
        "BCR",
        lambda s, random: [
            torch.sigmoid(random(s.B, 2)),
            random(s.B, s.R, s.C, seed=1),
            random(s.B, s.R, s.C, seed=2),
        ],
    ),
    "evidence_map": ("BCHWR", lambda s, random: [random(s.B, s.C, s.H, s.W), random(s.B, s.R, s.C, seed=1)]),
}
"""The sizes that an operator knows, and its floating arguments."""
# What differs from the defaults; with H = 1 or W = 1 alone these have maps of 1x3 and 2x1 pixels.
CHANGES: list[dict[str, int]] = [
    *({letter: 1} for letter in "BCHWKRN"),
    {"H": 1, "W": 2},
    {"H": 3, "W": 1},
    {"H": 1, "W": 1},
    *({letter: 16} for letter in "BCKN"),
]
EACH = [
    (operator, change)
    for operator, (letters, _) in CALLS.items()
    for change in [*CHANGES, dict.fromkeys(letters, 1)]
    if set(change) <= set(letters)
]


@pytest.fixture
def sized(new_case, random) -> Callable[..., Any]:
    """Makes a case of an operator with given sizes."""

    def make(name: str, sizes: Sizes) -> Any:
        operator = name.partition("-")[0]
        labels = {**dict.fromkeys(("label_cam", "dual_cam"), (sizes.B, sizes.K)), "subgroup_similarity": (sizes.N, 3)}
        labels["inter_intra"] = (sizes.B, 3)
        weights = [5.0, 5.0] if operator == "inter_intra" else []
        return new_case(
            name,
            operator,
            getattr(functional, operator),
            lambda shape, dtype: [each.to(dtype) for each in CALLS[name][1](sizes, random)],
            lambda shape: [LABELS[sizes.labels](*labels[operator]), *weights] if operator in labels else [],
            differentiable=operator != "evidence_map",
        )

    return make


def assert_agrees(case: Any, tensors: list[Tensor], tolerance: float) -> None:
    """With the float64 reference."""
    expected = case.run_with_gradients([each.double() for each in tensors], None, "reference")
    found, scales = case.run_with_gradients(tensors, None), case.smallest_scales(tensors, None)
    for position, (one, exact, scale) in enumerate(zip(found, expected, scales, strict=True)):
        assert one.shape == exact.shape
        error, size = ((one.double() - exact).abs().max(), exact.abs().max())
        assert error <= tolerance * max(float(size), scale), f"result or gradient {position}"


def name_of(value: object) -> str | None:
    return ",".join(f"{letter}={size}" for letter, size in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize(("operator", "change"), EACH, ids=name_of)
def test_sizes(operator, change, sized):
    case = sized(operator, replace(Sizes(), **change))
    assert_agrees(case, case.make(None, torch.float32), 1e-5)


@pytest.mark.parametrize("labels", ["equal", "different"])
@pytest.mark.parametrize("operator", ["label_cam", "dual_cam", "subgroup_similarity", "inter_intra"])
def test_labels_that_are_all_equal_or_all_different(operator, labels, sized):
    case = sized(operator, Sizes(labels=labels))
    assert_agrees(case, case.make(None, torch.float32), 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7)], ids=str)
@pytest.mark.parametrize("operator", CALLS)
def test_tensors_that_begin_one_element_into_their_memory(operator, dtype, tolerance, sized):
    case = sized(operator, Sizes(C=16, H=4, W=4))
    tensors = []
    for each in case.make(None, dtype):
        memory = torch.full((each.numel() + 1,), torch.nan, dtype=dtype)
        tensors.append(memory[1:].view(each.shape).copy_(each))
        assert tensors[-1].data_ptr() % 16 == dtype.itemsize
    assert_agrees(case, tensors, tolerance)
