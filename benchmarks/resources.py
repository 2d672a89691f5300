"""Compile every kernel variant for GPUs that are not there: ``python -m benchmarks.resources [TARGET ...]``.

The launchers plan each operator's calls on tensors without memory, for all `SHAPES`; each launch is compiled for every
target of `benchmarks.compiled`, or for those that are named. Fails on a spill, on an atomic, on less than half
occupancy on sm_90 (a quarter where a program takes a whole sample), and on loads of F that are narrower than the
alignment of its rows allows. For all targets it writes ``results/resources.md``, with the figures of
`benchmarks.sectors` where there are any.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import gcd
from pathlib import Path
from typing import Any

import torch

from benchmarks.compiled import TARGETS, Resources, compile_launch, occupancy, read_resources
from benchmarks.examples import WHOLE, Shape, examples

RESULTS = Path(__file__).parent / "results" / "resources.md"
SECTORS = RESULTS.with_name("sectors.json")
SHAPES = [
    Shape(64, channels, side, dtype, channels_last)
    for dtype, channels_last, side, channels in product(
        (torch.bfloat16, torch.float16, torch.float32), (False, True), (7, 14, 28), (512, 1280, 2048)
    )
]
MIN_OCCUPANCY = 0.5
# One program of 16 warps, all of whose registers are in use: there are no more programs than samples, and the L2 cache
# is to hold what those at work read again.
MIN_OCCUPANCY_OF_WHOLE = 0.25
FEW_SECTORS = 16
COLUMNS = [
    "call",
    "kernel",
    "dtype of F",
    "layout",
    "map",
    "warps",
    *(f"registers {target}" for target in TARGETS),
    "shared bytes",
    "spilled",
    "F load bytes",
    "occupancy sm_90",
    "sectors of F",
    "sectors of the rest",
]
INTRODUCTION = """# What the compiler makes of the kernels

Made by `python -m benchmarks.resources`, without a GPU: compiled, not timed. Channels 512, 1280 and 2048; where the
code differs between them, a cell gives the range. Registers are per thread, spills are bytes of stack (CUDA) or spilled
registers (AMD) over all targets, occupancy is what registers and shared memory leave on sm_90, and "F load bytes" is
the narrowest load of the features by one thread in the PTX for sm_90. The calls are those of a step with mixed
precision: everything but F is float32.

The last two columns come from `python -m benchmarks.sectors PTXRUN`, which runs the code compiled for sm_80 in an
interpreter of PTX: 32-byte sectors read / different ones among them, for everything that fills more than a few.

"""


@dataclass(frozen=True)
class Compiled:
    """One launch of one call, compiled for one target."""

    call: str
    kernel: str
    shape: Shape
    target: str
    variant: str
    """Names the code: launches with the same variant run the same one."""
    warps: int
    resources: Resources

    def __str__(self) -> str:
        return f"{self.call}, {self.kernel} for {self.shape} on {self.target}"

    @property
    def occupancy(self) -> float:
        return occupancy(self.resources, self.warps)

    @property
    def features_width(self) -> int | None:
        """Bytes of the narrowest load of the features; None if it reads none, or where that is not known."""
        widths = self.resources.widths
        return min((*widths.get("features", ()), *widths.get("first", ())), default=None)

    def faults(self) -> list[str]:
        """A sentence for every limit that it breaks."""
        found = []
        if self.resources.spilled:
            found.append(f"{self} spills {self.resources.spilled}.")
        if self.resources.atomics:
            found.append(f"{self} has {self.resources.atomics} atomics.")
        least = MIN_OCCUPANCY_OF_WHOLE if self.kernel in WHOLE else MIN_OCCUPANCY
        if self.target == "sm_90" and self.occupancy < least:
            found.append(f"{self} leaves {self.occupancy:.0%} occupancy.")
        if self.features_width is not None and self.features_width < widest_load(self.shape):
            found.append(f"{self} loads F by {self.features_width} bytes, not {widest_load(self.shape)}.")
        return found


def widest_load(shape: Shape) -> int:
    """Bytes that one thread can load at once at the start of any row: a channel in NCHW, else a pixel."""
    row = shape.channels if shape.channels_last else shape.side**2
    return gcd(16, row * shape.dtype.itemsize)


def compile_all(shapes: Collection[Shape] = SHAPES, targets: Collection[str] = tuple(TARGETS)) -> list[Compiled]:
    """Compile every launch of every call, in two processes. Triton's cache on disk keeps the code."""
    # Not forked: the parent may hold threads of torch.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return [each for some in pool.map(_compile, *zip(*product(shapes, targets), strict=True)) for each in some]


def _compile(shape: Shape, target: str) -> list[Compiled]:
    torch.set_num_threads(1)
    found = []
    for example in examples(shape, "meta"):
        for launch in example.plan():
            kernel = compile_launch(launch, target)
            name, warps = kernel.metadata.name, launch.num_warps
            found.append(Compiled(str(example), name, shape, target, kernel.hash, warps, read_resources(kernel)))
    return found


Row = list[Compiled]
"""One kernel in one call under one dtype, layout and map: all channel counts and targets."""


def render(compiled: Iterable[Compiled]) -> str:
    """The table; rows of the same code are one."""
    rows: dict[tuple[object, ...], Row] = {}
    for each in compiled:
        shape = each.shape
        rows.setdefault((each.call, each.kernel, shape.dtype, shape.channels_last, shape.side), []).append(each)
    same: dict[tuple[str, ...], list[Row]] = {}
    for row in rows.values():
        same.setdefault(tuple(each.variant for each in row), []).append(row)
    read = {(each["call"], each["shape"]): each["read"] for each in json.loads(SECTORS.read_text(encoding="utf-8"))}
    cells = [COLUMNS, ["---"] * len(COLUMNS)]
    cells += [[*_cells([each for row in group for each in row]), *_sectors(group, read)] for group in same.values()]
    return INTRODUCTION + "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _cells(row: Row) -> list[str]:
    on_90 = [each for each in row if each.target == "sm_90"]
    widths = [each.features_width for each in on_90 if each.features_width is not None]
    return [
        "; ".join(dict.fromkeys(each.call for each in row)),
        f"`{row[0].kernel}`",
        *(_axis([each.shape for each in row], name) for name in ("dtype_name", "layout", "map")),
        _span(each.warps for each in row),
        *(_span(each.resources.registers for each in row if each.target == target) for target in TARGETS),
        _span(each.resources.shared for each in row),
        _span(each.resources.spilled for each in row),
        _span(widths),
        f"{min(each.occupancy for each in on_90):.0%}",
    ]


def _sectors(group: Iterable[Row], read: dict[tuple[str, str], Any]) -> list[str]:
    """How often each sector of the features, and of anything else that fills a few, was read when the code was run."""
    ratios: dict[str, list[float]] = {}
    for each in (each for row in group for each in row if each.target == "sm_90"):
        for name, (times, unique) in read.get((each.call, str(each.shape)), {}).get(each.kernel, {}).items():
            if unique >= FEW_SECTORS:
                ratios.setdefault(name, []).append(times / unique)
    cells = {name: f"{max(values):.2f}" for name, values in ratios.items()}
    return [cells.pop("features", "-"), ", ".join(f"{name} {cell}" for name, cell in cells.items()) or "-"]


def _axis(shapes: Iterable[Shape], name: str) -> str:
    """The values of one axis that occur, or "any" if all do."""
    found = dict.fromkeys(str(getattr(shape, name)) for shape in shapes)
    return "any" if len(found) == len({getattr(shape, name) for shape in SHAPES}) else ", ".join(found)


def _span(values: Iterable[int]) -> str:
    ordered = sorted(set(values))
    return "-" if not ordered else str(ordered[0]) if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def main(targets: Collection[str]) -> None:
    compiled = compile_all(SHAPES, targets or tuple(TARGETS))
    faults = [fault for each in compiled for fault in each.faults()]
    variants = len({each.variant for each in compiled})
    print(*faults, f"{variants} variants, {len(faults)} faults.", sep="\n")
    if not targets:
        RESULTS.write_text(render(compiled), encoding="utf-8")
        print(f"Table in {RESULTS}.")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(sys.argv[1:])
