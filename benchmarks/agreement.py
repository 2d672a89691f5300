"""No figure without agreement: every peer must give the package's results and gradients before it is timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.workloads import OPERATORS, PACKAGE, STEP, TINY_SHAPES, Workload, make

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 1e-2}
"""By the dtype of the features: largest L2 distance of two results or gradients, relative to the package's L2 norm. In
float32 only naive's gradient of the biases comes near: to a map that is normalized a bias is nothing, so that what the
pixels of a class map give it cancels, down to their rounding."""
MOVED_EXTREMA = 0.4
"""The same for gradients in bf16 that go to the extreme pixels of a map: a CAM rounded to bf16 has them elsewhere. That
the formulas are the same is what float64 and float32 show."""


class DisagreementError(Exception):
    """A peer does not compute what the package computes: its time says nothing."""


def check(workload: Workload, peer: str) -> None:
    """Compare a peer's outputs and gradients with the package's.

    Raises:
        DisagreementError: one is off by more than `TOLERANCE`, or not finite.
    """
    tolerance = TOLERANCE[workload.inputs[0].dtype]
    with _full_convolutions():
        expected, actual = _results(workload, PACKAGE), _results(workload, peer)
    for name, wanted in expected.items():
        moved = workload.has_extrema and name.startswith("gradient") and tolerance == TOLERANCE[torch.bfloat16]
        accepted = MOVED_EXTREMA if moved else tolerance
        error = relative_error(actual[name], wanted)
        if not error <= accepted:
            raise DisagreementError(f"Peer {peer}: {name} is off by {error:.1e}; accepted is {accepted:.0e}.")


def check_formulas(device: str) -> None:
    """Compare all eager peers with the package in float64 on a tiny shape; raises as `check`."""
    shape = replace(TINY_SHAPES[0], dtype=torch.float64)
    for what in (STEP, *OPERATORS):
        workload = make(what, shape, device)
        for peer in workload.contenders.keys() - {PACKAGE}:
            check(workload, peer)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """L2 distance over the L2 norm of what is expected; NaN where either is not finite."""
    distance = torch.linalg.vector_norm(actual - expected, dtype=torch.float64)
    return float(distance / torch.linalg.vector_norm(expected, dtype=torch.float64).clamp(min=1e-30))


@contextmanager
def _full_convolutions() -> Iterator[None]:
    """Convolutions of float32, which naive has, in float32: cuDNN rounds their factors to TF32 unless told not to.

    Peers are timed as they are by default, TF32 and all; but whether formulas agree is not seen through its rounding.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _results(workload: Workload, contender: str) -> dict[str, Tensor]:
    workload.clear()
    found = {f"output {number}": output for number, output in enumerate(workload.run(contender))}
    for number, leaf in enumerate(workload.inputs):
        if leaf.grad is not None:
            found[f"gradient of input {number}"] = leaf.grad
    workload.clear()
    return found
