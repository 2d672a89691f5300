"""Run the compiled kernels without a GPU: ``python -m benchmarks.sectors PTXRUN [DTYPE [CHANNELS]]``.

PTXRUN is the file of a PTX interpreter whose ``launch(kernel, arguments, constants, grid, **options)`` compiles a
kernel for sm_80, runs it on CPU tensors and counts 32-byte sectors by argument. Every call of every operator runs at
real channel counts and map sizes in memory that was NaN before, is compared with the float64 reference, and must not
read sectors of F much more than once. DTYPE, bf16 or the like, and CHANNELS leave it at such features; for all it
writes ``results/sectors.json``, which `benchmarks.resources` shows in its table.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.examples import WHOLE, Example, Shape, examples
from benchmarks.resources import SECTORS, SHAPES
from iir_fast.kernels.inter_intra import native
from iir_fast.kernels.launch import Launch

BATCH = 2
TOLERANCE = 1e-4
"""Of a float32 sum, relative to the largest magnitude; a gradient in a lower dtype may be rounded besides."""

Sectors = dict[str, tuple[int, int]]
"""Argument -> 32-byte sectors read, and how many different ones those are."""


@contextmanager
def emulated(tool: Any) -> Iterator[dict[str, Sectors]]:
    """Launches inside the block run in the PTX interpreter; what each kernel reads is collected."""
    counted: dict[str, Sectors] = {}

    def launch(self: Launch) -> None:
        stats = tool.launch(self.kernel, dict(self.arguments), dict(self.constants), self.grid, **self.options)
        found: dict[str, list[int]] = {}
        for name, counts in stats.arg.items():
            # Programs that read a map each run together, and the interpreter counts a read of both as one of the first.
            one = found.setdefault("features" if name in ("first", "second") else name, [0, 0])
            one[0] += counts["ld_sectors"]
            one[1] += counts["ld_unique_sectors"]
        counted[self.kernel.fn.__name__] = {name: (read, unique) for name, (read, unique) in found.items() if read}

    # What the host keeps for backward must do for Triton's kernels too, which no device here announces.
    with patch.object(Launch, "__call__", launch), patch.object(native, "may_run_triton", lambda device_type: True):
        yield counted


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest magnitude; NaN if an element was not written."""
    return float((actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def largest_ratio(shape: Shape) -> float:
    """How often a sector of F may be read. A row of a 7x7 or 14x14 map does not end where a sector does."""
    return 1.02 if shape.channels_last else {7: 1.15, 14: 1.05, 28: 1.02}[shape.side]


def faults(example: Example, shape: Shape, outputs: tuple[Tensor, ...], counted: dict[str, Sectors]) -> list[str]:
    """A sentence for every result that is wrong and every kernel that reads F too often."""
    found = []
    for number, (actual, expected) in enumerate(zip(outputs, example.expected(), strict=True)):
        allowed = TOLERANCE + torch.finfo(actual.dtype).eps
        if expected is not None and not error(actual, expected) <= allowed:
            found.append(f"{example} for {shape}: result {number} is off by {error(actual, expected):.1e}.")
    for kernel, sectors in counted.items():
        read, unique = sectors.get("features", (0, 1))
        # A program with a whole sample reads it twice, unless the maps that are read are not the one that is pooled.
        times = 2 if kernel in WHOLE and "own maps" not in example.option else 1
        if read > times * largest_ratio(shape) * unique:
            found.append(f"{example} for {shape}: {kernel} reads sectors of F {read / unique:.3f} times.")
    return found


def _tool(path: str) -> Any:
    specification = importlib.util.spec_from_file_location("ptxrun", path)
    if specification is None or specification.loader is None:
        sys.exit(f"{path} is not a Python file.")
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    return tool


def _run(path: str, shape: Shape) -> tuple[list[dict[str, Any]], list[str]]:
    """Records and faults of every call for one shape."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # new memory is NaN
    tool = _tool(path)
    records, problems = [], []
    for example in examples(shape):
        with emulated(tool) as counted:
            outputs = example.run()
        problems += faults(example, shape, outputs, counted)
        records.append({"call": str(example), "shape": str(shape), "read": counted})
    print(f"{shape}: {len(records)} calls run, {len(problems)} faults", file=sys.stderr)
    return records, problems


def main(path: str, dtype: str | None = None, channels: str | None = None) -> None:
    shapes = [
        replace(shape, batch=BATCH)
        for shape in SHAPES
        if dtype in (None, shape.dtype_name) and channels in (None, str(shape.channels))
    ]
    if not shapes:
        accepted = sorted({f"{shape.dtype_name} {shape.channels}" for shape in SHAPES})
        sys.exit(f"DTYPE and CHANNELS are {dtype} {channels}; accepted are {', '.join(accepted)}.")
    # Not forked: the parent may hold threads of torch.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(_run, [path] * len(shapes), shapes))
    records, problems = ([each for result in results for each in result[part]] for part in (0, 1))
    print(*problems, f"{len(records)} calls run, {len(problems)} faults.", sep="\n")
    if dtype is None:
        SECTORS.write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n", encoding="utf-8")
        print(f"Sectors in {SECTORS}.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
