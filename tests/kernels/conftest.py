"""The operators as a table of cases, so that every property is tested for every one of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from iir_fast import functional
from iir_fast.kernels import backend

# Triton's interpreter is slow.
HOST = os.environ.get("TRITON_INTERPRET") != "1"
# Maps of 1 pixel, odd sides, the sides that backbones give; odd channel and batch counts.
SHAPES = [(1, 1, 1, 1), (3, 5, 5, 9), (2, 17, 7, 7), (5 if HOST else 2, 33, 14, 14)]


@dataclass(frozen=True)
class Case:
    """One way to call one operator."""

    name: str
    operator: str
    call: Callable[..., tuple[Tensor, ...] | Tensor]
    make: Callable[[tuple[int, int, int, int], torch.dtype], list[Tensor]]
    """Floating arguments for (B, C, H, W); everything else is fixed by the case."""
    extra: Callable[[tuple[int, int, int, int]], list[object]] = field(default=lambda shape: [])
    """What follows the floating arguments."""
    differentiable: bool = True

    def run(self, tensors: list[Tensor], shape: tuple[int, int, int, int], name: str | None = None) -> list[Tensor]:
        """Results of the named backend, or of the one under test."""
        with backend(name) if name else nullcontext():
            out = self.call(*tensors, *self.extra(shape))
        return [out] if isinstance(out, Tensor) else list(out)

    def run_with_gradients(
        self,
        tensors: list[Tensor],
        shape: tuple[int, int, int, int],
        name: str | None = None,
        around_forward: AbstractContextManager[object] | None = None,
    ) -> list[Tensor]:
        """Results, then the gradients of their sum under fixed random weights."""
        leaves = [tensor.detach().requires_grad_(self.differentiable) for tensor in tensors]
        with around_forward or nullcontext():
            outs = self.run(leaves, shape, name)
        if not self.differentiable:
            return outs
        generator = torch.Generator().manual_seed(7)
        weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outs]
        with backend(name) if name else nullcontext():
            gradients = torch.autograd.grad(outs, leaves, weights)
        return [*(out.detach() for out in outs), *gradients]


def _random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _labels(batch: int, classes: int) -> Tensor:
    return torch.arange(batch).mul(7).add(1) % classes


CASES = [
    Case(
        "label_cam",
        "label_cam",
        functional.label_cam,
        lambda s, d: [_random(*s, dtype=d), _random(2, 4, s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0], 4)],
    ),
    Case(
        "label_cam-one_classifier",
        "label_cam",
        functional.label_cam,
        lambda s, d: [_random(*s, dtype=d), _random(1, 1000, s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0], 1000)],
    ),
    Case(
        "regulate",
        "regulate",
        functional.regulate,
        lambda s, d: [_random(s[0], *s[2:], dtype=d), _random(s[0], *s[2:], dtype=d, seed=1)],
    ),
    Case(
        "regulate-hard",
        "regulate",
        lambda a, b: functional.regulate(a, b, temperature=0.3, hard=True),
        lambda s, d: [_random(s[0], *s[2:], dtype=d), _random(s[0], *s[2:], dtype=d, seed=1)],
    ),
    Case(
        "regulate-given_thresholds",
        "regulate",
        functional.regulate,
        lambda s, d: [
            _random(s[0], *s[2:], dtype=d),
            _random(s[0], *s[2:], dtype=d, seed=1),
            torch.sigmoid(_random(s[0], 2, dtype=d, seed=2)),
        ],
    ),
    Case(
        "masked_pool",
        "masked_pool",
        functional.masked_pool,
        lambda s, d: [_random(*s, dtype=d), torch.sigmoid(_random(s[0], 2, *s[2:], dtype=d, seed=1))],
    ),
    Case(
        "masked_pool-three_masks",
        "masked_pool",
        functional.masked_pool,
        lambda s, d: [_random(*s, dtype=d), torch.sigmoid(_random(s[0], 3, *s[2:], dtype=d, seed=1))],
    ),
    Case(
        "subgroup_similarity",
        "subgroup_similarity",
        functional.subgroup_similarity,
        lambda s, d: [_random(s[0] * s[2], s[1], dtype=d), _random(s[0] * s[2], s[1], dtype=d, seed=1)],
        lambda s: [_labels(s[0] * s[2], 3)],
    ),
    Case(
        "subgroup_similarity-one_class",
        "subgroup_similarity",
        functional.subgroup_similarity,
        lambda s, d: [_random(s[0] * s[2], s[1], dtype=d), _random(s[0] * s[2], s[1], dtype=d, seed=1)],
        lambda s: [torch.full((s[0] * s[2],), -5)],
    ),
    Case(
        "evidence_map",
        "evidence_map",
        functional.evidence_map,
        lambda s, d: [_random(*s, dtype=d), _random(s[0], 2, s[1], dtype=d, seed=1)],
        differentiable=False,
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=[case for case in CASES if case.differentiable], ids=lambda case: case.name)
def differentiable(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request: pytest.FixtureRequest) -> tuple[int, int, int, int]:
    return request.param
