"""Count what a training step moves and launches: ``python -m benchmarks.traffic``.

The step is what `DualCAMHead` with learned thresholds and `IIRLoss` run, forward and backward, with classifiers that
read the shared map and with maps of their own. Every operator runs in Triton's interpreter, called as autograd calls
it; every lane of every load and store that is not masked off counts. What torch does inside the operators and between
them counts as well, each of its calls as one launch that reads its inputs and writes its outputs once. Left out are
convolutions, batch norm and the cross-entropies, whose gradients of the logits are given, as is that of the loss.

The floor is what each operator is given read once, and what it returns written once, forward and backward: F once each
way, its gradient once, the weights once each way, their gradient once. A second read of F each way is what pooling
under masks takes that come from all of F, unless a cache holds it; `passes` counts both. Writes ``results/traffic.md``.
"""

from __future__ import annotations

import os

# Before any kernel is defined.
os.environ["TRITON_INTERPRET"] = "1"

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.counting import Traffic, counting
from benchmarks.examples import CLASSES, WHOLE, Shape
from iir_fast import DualCAMHead, IIRLoss
from iir_fast.functional import evidence_map
from iir_fast.kernels.replay import only_views
from iir_fast.kernels.tiles import WINDOW

RESULTS = Path(__file__).parent / "results" / "traffic.md"
SHAPES = [
    Shape(4, 512, side, dtype, channels_last)
    for side, dtype in ((7, torch.bfloat16), (14, torch.bfloat16), (14, torch.float32))
    for channels_last in (False, True)
]
HEADER = ("| features | head | call | bytes | bytes / floor | launches |", "| --- | --- | --- | ---: | ---: | ---: |")
# With 128 channels at 28x28 the masks, which are read twice, are a thirtieth of F; with more of them it is 1.02.
MAX_KERNEL_RATIO = 1.08
# Of kernels on descriptors, which read them twice: the second time from the cache.
MAX_SMALL_RATIO = 2.1
# What is reached, on the smallest maps with the fewest channels; what is wanted is 1.05.
MAX_STEP_RATIO = {"shared": 1.57, "branches": 1.30}
# With a whole sample to a program; where several share it, four more, and one that sums the pooled map where they share
# its pixels. Two are for CAMs of weights less some of their mean.
MAX_LAUNCHES = 16
INTRODUCTION = """# What a training step moves

Made by `python -m benchmarks.traffic`: counted in Triton's interpreter, not measured. Batch {batch} of {classes}
classes, everything but F in float32, thresholds learned, CAMs of weights less a quarter of their mean. The step is that
of `DualCAMHead` and `IIRLoss`, forward and backward, without convolutions, batch norm and cross-entropies. "shared":
both classifiers read F; "branches": each reads a map of its own, as large as F, and F is pooled.

A kernel's floor is each byte it touches once. The step's floor is what each operator is given and returns, once: F
once each way, its gradient once. Its bytes are given over that floor. Where no cache holds F between two launches they
are also given over the floor with a second read of F each way, which is what pooling takes under masks that come from
all of F. "Again" is what a program of `dual_cam_*_kernel`, which takes a whole sample of at most 384 KiB, reads once
more: it counts as served by the L2 cache, which nothing here has measured. Other caches are not modelled: a byte that
is asked for twice counts twice. "torch" is what is left to torch, each call as one launch that reads its inputs and
writes its outputs once.

"""


class _Calls(TorchDispatchMode):
    """Counts the calls of torch inside that have work to do, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(func, args, result)
        return result

    def note(self, func: Any, args: Any, result: Any) -> None:
        name, given, found = func.overloadpacket.__name__, _tensors(args), _tensors(result)
        if not only_views(func, args, found) and "empty" not in name and name != "_unsafe_view":
            self.names.append(name)
            self.bytes += sum(tensor.nbytes for tensor in (*given, *found))


@dataclass(frozen=True)
class Operator:
    """What one call of a registered operator did, or all that torch did between them."""

    name: str
    launches: list[Traffic]
    calls: list[str]
    """What it left to torch."""
    bytes_of_calls: int
    floor: int

    @property
    def bytes(self) -> int:
        return sum(map(moved, self.launches)) + self.bytes_of_calls


def moved(launch: Traffic) -> int:
    """Bytes from and to memory: without those that a program with a whole sample of its own reads again."""
    return launch.bytes - (launch.again if launch.kernel in WHOLE else 0)


@dataclass(frozen=True)
class Step:
    """A whole step."""

    operators: list[Operator]
    whole: bool
    """Whether a program takes a whole sample."""
    second_reads: int
    """Bytes of the shared map that are read from memory a second time, once each way."""
    head: str

    @property
    def bytes(self) -> int:
        return sum(operator.bytes for operator in self.operators)

    @property
    def floor(self) -> int:
        return sum(operator.floor for operator in self.operators)

    @property
    def ratio(self) -> float:
        """Bytes over the floor with a second read of F each way."""
        return self.bytes / (self.floor + self.second_reads)

    @property
    def launches(self) -> int:
        """Kernels, and calls of torch."""
        return sum(len(operator.launches) + len(operator.calls) for operator in self.operators)


class _Operators(TorchDispatchMode):
    """Runs the Triton implementation of every operator of iir_fast that is called inside, and keeps what it does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operator] = []
        self.between = _Calls()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "iir_fast":
            result = func(*args, **(kwargs or {}))
            self.between.note(func, args, result)
            return result
        name = func.overloadpacket.__name__
        room = import_module(f"iir_fast.kernels.{name.removesuffix('_backward')}.triton")
        with counting() as launches, _Calls() as calls:
            result = (room.backward if name.endswith("_backward") else room.forward)(*args)
        inputs = {tensor.untyped_storage().data_ptr() for tensor in _tensors(args)}
        floor = sum(_read_once(address, launches) for address in inputs) + sum(each.nbytes for each in _tensors(result))
        self.found.append(Operator(name, launches, calls.names, calls.bytes, floor))
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _read_once(address: int, launches: Sequence[Traffic]) -> int:
    """Bytes of a block of memory that any of the launches read."""
    accesses = [launch.read[address] for launch in launches if address in launch.read]
    return int(np.logical_or.reduce([each.touched for each in accesses]).sum()) * accesses[0].size if accesses else 0


def _features(shape: Shape, seed: int = 0) -> Tensor:
    size = (shape.batch, shape.channels, shape.side, shape.side)
    features = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(shape.dtype)
    return features.contiguous(memory_format=torch.channels_last) if shape.channels_last else features


class _Branch(nn.Module):
    """A branch whose map is there already."""

    def __init__(self, branch_map: Tensor) -> None:
        super().__init__()
        self.branch_map = branch_map

    def forward(self, features: Tensor) -> Tensor:
        return self.branch_map


def step(shape: Shape, branches: bool = False) -> Step:
    """A training step's operators in the order of their calls, and torch's work between them."""
    features, head = _features(shape).requires_grad_(), DualCAMHead(shape.channels, CLASSES, hidden=None)
    if branches:
        head.branches = nn.ModuleList(_Branch(_features(shape, seed).requires_grad_()) for seed in (1, 2))
    labels = torch.arange(shape.batch) // 2 % CLASSES
    regulation = IIRLoss()
    of_loss, of_logits = torch.ones(()), torch.randn(2, shape.batch, CLASSES).unbind()
    # On a GPU labels are not looked at.
    with patch("iir_fast.kernels.label_cam.check_range"), _Operators() as operators:
        out = head(features, labels)
        torch.autograd.backward((regulation(out), out.logits_a, out.logits_b), (of_loss, *of_logits))
    between = Operator("between the operators", [], operators.between.names, operators.between.bytes, 0)
    whole = any(launch.kernel in WHOLE for operator in operators.found for launch in operator.launches)
    second_reads = 0 if branches or whole else 2 * features.nbytes
    return Step([*operators.found, between], whole, second_reads, "branches" if branches else "shared")


def inference(shape: Shape) -> list[Operator]:
    """The operator that a step does not call."""
    vectors = torch.randn(shape.batch, 1, shape.channels, generator=torch.Generator().manual_seed(1))
    with _Operators() as operators:
        evidence_map(_features(shape), vectors)
    return list(operators.found)


def faults(shape: Shape, of_step: Step, others: Sequence[Operator] = ()) -> list[str]:
    """A sentence for every limit that is broken."""
    found = [
        f"{shape}: {launch.kernel} of {operator.name} moves {moved(launch) / launch.floor:.3f} times its floor."
        for operator in (*of_step.operators, *others)
        for launch in operator.launches
        if moved(launch) > _allowed(shape, launch) * launch.floor
    ]
    if of_step.ratio > MAX_STEP_RATIO[of_step.head]:
        found.append(f"{shape}: the step, {of_step.head}, moves {of_step.ratio:.3f} times its floor.")
    shared_pixels = not shape.channels_last and shape.side**2 > WINDOW
    if of_step.launches > MAX_LAUNCHES + (0 if of_step.whole else 4 + shared_pixels):
        found.append(f"{shape}: the step, {of_step.head}, takes {of_step.launches} launches.")
    return found


def _allowed(shape: Shape, launch: Traffic) -> float:
    """Times its floor that a launch may move: less of one that moves as much as a good part of the features."""
    features = shape.batch * shape.channels * shape.side**2 * shape.dtype.itemsize
    return MAX_KERNEL_RATIO if launch.floor > features / 2 else MAX_SMALL_RATIO


def rows(shape: Shape, of_step: Step) -> list[str]:
    """Lines of the table for one step."""
    ratio = f"**{of_step.bytes / of_step.floor:.3f}**"
    if of_step.second_reads:
        ratio += f", with second reads {of_step.ratio:.3f}"
    whole = f"| {shape} | {of_step.head} | **the whole step** | {of_step.bytes:,} | {ratio} | **{of_step.launches}** |"
    return [*_of_operators(shape, of_step.operators, of_step.head), whole]


def _of_operators(shape: Shape, operators: Sequence[Operator], head: str) -> list[str]:
    lines = []
    for operator in operators:
        for launch in operator.launches:
            call, ratio = f"{operator.name} `{launch.kernel}`", moved(launch) / launch.floor
            again = f", and {launch.again:,} again" if launch.kernel in WHOLE else ""
            lines.append(f"| {shape} | {head} | {call} | {moved(launch):,}{again} | {ratio:.3f} | 1 |")
        if operator.calls:
            names, count = ", ".join(dict.fromkeys(operator.calls)), len(operator.calls)
            call = f"{operator.name}, torch: {names}"
            lines.append(f"| {shape} | {head} | {call} | {operator.bytes_of_calls:,} | - | {count} |")
    return lines


def count(shape: Shape) -> tuple[list[str], list[str]]:
    """Lines of the table for the features of one shape, and what is wrong there."""
    others = inference(shape)
    lines, problems = [], []
    for of_step in (step(shape), step(shape, branches=True)):
        lines += rows(shape, of_step)
        problems += faults(shape, of_step, others)
        print(f"{shape}, {of_step.head}: {of_step.ratio:.3f}, {of_step.launches} launches", file=sys.stderr)
    return [*lines, *_of_operators(shape, others, "-")], problems


def main() -> None:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        counted = list(pool.map(count, SHAPES))
    lines = [*HEADER, *(line for of_shape, _ in counted for line in of_shape)]
    problems = [problem for _, of_shape in counted for problem in of_shape]
    introduction = INTRODUCTION.format(batch=SHAPES[0].batch, classes=CLASSES)
    RESULTS.write_text(introduction + "\n".join(lines) + "\n", encoding="utf-8")
    print(*problems, f"{len(problems)} faults; table in {RESULTS}.", sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
