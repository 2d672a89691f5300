"""Count the bytes that a training step's kernels move: ``python -m benchmarks.traffic``.

Every operator of a step (label CAMs of two classifiers and IIRLoss, forward and backward) runs in Triton's
interpreter, called as autograd calls it; every lane of every load and store that is not masked off counts. The floor
of a kernel is everything it touches read once and written once. The floor of the step is the operators' inputs read
once and their outputs written once: what an operator keeps for itself in between, and what it leaves to torch, is
excess. Writes ``results/traffic.md``.
"""

from __future__ import annotations

import os

# Before any kernel is defined.
os.environ["TRITON_INTERPRET"] = "1"

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counting import Traffic, counting
from benchmarks.examples import CLASSES, Shape
from iir_fast.functional import evidence_map, iir_loss, label_cam

RESULTS = Path(__file__).parent / "results" / "traffic.md"
SHAPES = [
    Shape(4, 512, side, dtype, channels_last)
    for dtype, side, channels_last in product((torch.bfloat16, torch.float32), (7, 14, 28), (False, True))
]
HEADER = ("| features | kernel | bytes | bytes / floor | launches |", "| --- | --- | --- | --- | --- |")
LARGEST_KERNEL_RATIO, LARGEST_STEP_RATIO, MOST_LAUNCHES = 1.05, 1.10, 14
INTRODUCTION = """# Bytes that the kernels move

Made by `python -m benchmarks.traffic`: counted in Triton's interpreter, not measured. Batch {batch} of {classes}
classes, everything but F in float32. A kernel's floor is each byte it touches once; the step's floor (label CAMs of two
classifiers and IIRLoss, forward and backward) is the operators' inputs and outputs once. `torch` stands for what an
operator leaves to torch's own kernels, each counted as one launch that reads its inputs and writes its outputs once;
what the loss does with descriptors between its operators is not counted. Caches are not modelled: bytes that are asked
for twice count twice.

"""


class _Calls(TorchDispatchMode):
    """Counts the calls of torch inside that have work to do, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and "empty" not in name:
            self.names.append(name)
            self.bytes += sum(tensor.nbytes for tensor in (*_tensors(args), *_tensors(result)))
        return result


@dataclass(frozen=True)
class Operator:
    """What one call of a registered operator did."""

    name: str
    launches: list[Traffic]
    calls: list[str]
    """What it left to torch."""
    bytes_of_calls: int
    floor: int

    @property
    def bytes(self) -> int:
        return sum(launch.bytes for launch in self.launches) + self.bytes_of_calls


class _Operators(TorchDispatchMode):
    """Runs the Triton implementation of every operator of iir_fast that is called inside, and keeps what it does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "iir_fast":
            return func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        room = import_module(f"iir_fast.kernels.{name.removesuffix('_backward')}.triton")
        with counting() as launches, _Calls() as calls:
            result = (room.backward if name.endswith("_backward") else room.forward)(*args)
        inputs = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args)}
        floor = sum(_read_once(address, launches) for address in inputs) + sum(each.nbytes for each in _tensors(result))
        self.found.append(Operator(name, launches, calls.names, calls.bytes, floor))
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in (values if isinstance(values, list | tuple) else [values]) if isinstance(value, Tensor)]


def _read_once(address: int, launches: Sequence[Traffic]) -> int:
    """Bytes of a block of memory that any of the launches read."""
    accesses = [launch.read[address] for launch in launches if address in launch.read]
    return int(np.logical_or.reduce([each.touched for each in accesses]).sum()) * accesses[0].size if accesses else 0


def _features(shape: Shape) -> Tensor:
    size = (shape.batch, shape.channels, shape.side, shape.side)
    features = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(shape.dtype)
    return features.contiguous(memory_format=torch.channels_last) if shape.channels_last else features


def step(shape: Shape) -> list[Operator]:
    """A training step's operators in the order of their calls, both classifiers on the shared features."""
    features = _features(shape).requires_grad_()
    weights = torch.randn(2, CLASSES, shape.channels, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.arange(shape.batch) // 2 % CLASSES
    with _Operators() as operators:
        cams, pooled = label_cam(features, weights, labels)
        cam_a, cam_b = cams.unbind(1)
        loss = iir_loss(cam_a, cam_b, features, labels).loss
        (loss + pooled.sum()).backward()
    return list(operators.found)


def inference(shape: Shape) -> list[Operator]:
    """The operator that a step does not call."""
    vectors = torch.randn(shape.batch, 1, shape.channels, generator=torch.Generator().manual_seed(1))
    with _Operators() as operators:
        evidence_map(_features(shape), vectors)
    return list(operators.found)


def faults(shape: Shape, of_step: Sequence[Operator], others: Sequence[Operator]) -> list[str]:
    """A sentence for every limit that is broken."""
    found = [
        f"{shape}: {launch.kernel} of {operator.name} moves {launch.bytes / launch.floor:.3f} times its floor."
        for operator in (*of_step, *others)
        for launch in operator.launches
        if launch.bytes > LARGEST_KERNEL_RATIO * launch.floor
    ]
    ratio, launches = step_ratio(of_step), count_launches(of_step)
    if ratio > LARGEST_STEP_RATIO:
        found.append(f"{shape}: the step moves {ratio:.3f} times its floor.")
    if launches > MOST_LAUNCHES:
        found.append(f"{shape}: the step takes {launches} launches.")
    return found


def step_ratio(operators: Sequence[Operator]) -> float:
    return sum(operator.bytes for operator in operators) / sum(operator.floor for operator in operators)


def count_launches(operators: Sequence[Operator]) -> int:
    return sum(len(operator.launches) for operator in operators)


def rows(shape: Shape, of_step: Sequence[Operator], others: Sequence[Operator]) -> list[str]:
    """Lines of the table for one shape."""
    total, calls = sum(operator.bytes for operator in of_step), sum(len(operator.calls) for operator in of_step)
    launches = f"{count_launches(of_step)} + {calls} of torch"
    whole = f"| {shape} | **the whole step** | {total:,} | **{step_ratio(of_step):.3f}** | **{launches}** |"
    return [*_of_operators(shape, of_step), whole, *_of_operators(shape, others)]


def _of_operators(shape: Shape, operators: Sequence[Operator]) -> list[str]:
    lines = []
    for operator in operators:
        for launch in operator.launches:
            ratio = launch.bytes / launch.floor
            lines.append(f"| {shape} | {operator.name} `{launch.kernel}` | {launch.bytes:,} | {ratio:.3f} | 1 |")
        if operator.calls:
            names, count = ", ".join(dict.fromkeys(operator.calls)), len(operator.calls)
            lines.append(f"| {shape} | {operator.name}, torch: {names} | {operator.bytes_of_calls:,} | - | {count} |")
    return lines


def main() -> None:
    lines, problems = list(HEADER), []
    for shape in SHAPES:
        of_step, others = step(shape), inference(shape)
        lines += rows(shape, of_step, others)
        problems += faults(shape, of_step, others)
        print(f"{shape}: the step moves {step_ratio(of_step):.3f} times its floor", file=sys.stderr)
    introduction = INTRODUCTION.format(batch=SHAPES[0].batch, classes=CLASSES)
    RESULTS.write_text(introduction + "\n".join(lines) + "\n", encoding="utf-8")
    print(*problems, f"{len(problems)} faults; table in {RESULTS}.", sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
