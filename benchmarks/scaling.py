"""Cost against batch, classes and pairs, package and peers: ``python -m benchmarks.scaling``.

Every curve of every contender runs in a process of its own under a memory budget, until it is through or out of memory.
Curves: the whole step against the batch (200 classes) and against the classes (batch 8), both with VGG16's map in fp32
and NCHW, and `subgroup_similarity` against the number of descriptors (C 1280, 32 per class); all forward and backward.
Prints growth exponents and writes ``results/DEVICE_scaling.json``.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import agreement, machine, peers
from benchmarks.clock import Clock
from benchmarks.workloads import MAPS, PACKAGE, STEP, Forward, Shape, Workload, make
from iir_fast import functional

RESULTS = Path(__file__).parent / "results"
MEMORY_SHARE = 0.6
"""Part of the machine's memory that a contender may take beyond its inputs."""
SECONDS_PER_POINT, ROUNDS = 2.0, (3, 15)
FITTED_POINTS = 4
CLASS_BATCH = 8
CHANNELS, PER_CLASS = 1280, 32


class Point(NamedTuple):
    """What one size costs."""

    size: int
    seconds: float
    """Median of the rounds."""
    extra_peak_bytes: int | None


@dataclass
class Curve:
    """One contender over all sizes that it got through."""

    name: str
    contender: str
    points: list[Point] = field(default_factory=list)
    out_of_memory_at: int | None = None

    def exponents(self) -> dict[str, float | None]:
        """Growth of time and memory with the size, over the largest `FITTED_POINTS` sizes."""
        last = self.points[-FITTED_POINTS:]
        sizes, bytes_ = [point.size for point in last], [point.extra_peak_bytes or 0 for point in last]
        return {
            "time": growth_exponent(sizes, [point.seconds for point in last]),
            "memory": growth_exponent(sizes, bytes_) if all(bytes_) else None,
        }


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The p of cost ~ size^p by least squares of the logarithms; None of fewer than two points."""
    if len(sizes) < 2:
        return None
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, costs))).slope


def step_against_batch(size: int, device: str) -> Workload:
    return make(STEP, Shape(*MAPS["VGG16"], size, 200), device)


def step_against_classes(size: int, device: str) -> Workload:
    return make(STEP, Shape(*MAPS["VGG16"], CLASS_BATCH, size), device)


def similarity_against_descriptors(size: int, device: str, channels: int = CHANNELS) -> Workload:
    random = torch.Generator().manual_seed(0)
    descriptors = [torch.randn(size, channels, generator=random).to(device).requires_grad_() for _ in range(2)]
    # Images of a class do not come in a row.
    groups = (torch.randperm(size, generator=random) // PER_CLASS).to(device)
    contenders: dict[str, Forward] = {
        PACKAGE: lambda *inputs: (functional.subgroup_similarity(*inputs),),
        "naive": lambda *inputs: (peers.subgroup_similarity_by_differences(*inputs),),
        "batched": lambda *inputs: (peers.subgroup_similarity(*inputs),),
    }
    return Workload((*descriptors, groups), contenders, 6 * descriptors[0].nbytes)


Maker = Callable[[int, str], Workload]
CURVES: dict[str, tuple[Maker, Sequence[int]]] = {
    "step against batch": (step_against_batch, (8, 16, 32, 64, 128, 256)),
    "step against classes": (step_against_classes, (200, 1000, 5000, 22000)),
    "subgroup_similarity against descriptors": (
        similarity_against_descriptors,
        (128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    ),
}
CONTENDERS = (PACKAGE, "naive", "batched")


def measure(name: str, contender: str, maker: Maker, sizes: Sequence[int], device: str, budget: int) -> Curve:
    """One curve in a process of its own, which may be killed for its memory without harm.

    Args:
        name: of the curve.
        contender: a key of the workloads' contenders.
        maker: makes the workload of a size.
        sizes: ascending.
        device: "cpu" or "cuda".
        budget: bytes that a call may take beyond its inputs; on CUDA the device itself sets the limit.
    """
    curve = Curve(name, contender)
    # Not forked: the parent may hold threads of torch.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_sizes, args=(sender, contender, maker, sizes, device, budget))
    child.start()
    sender.close()
    try:
        while isinstance(message := receiver.recv(), Point):
            curve.points.append(message)
            print(f"{name}, {contender}: {message}", file=sys.stderr)
    except EOFError:
        message = None
    child.join()
    # A machine without memory left kills.
    if message is not None or child.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{name}, {contender}: {message or f'the process ended with {child.exitcode}'}.")
    if len(curve.points) < len(sizes):
        curve.out_of_memory_at = sizes[len(curve.points)]
    return curve


def _measure_sizes(
    sender: Connection, contender: str, maker: Maker, sizes: Sequence[int], device: str, budget: int
) -> None:
    """In the child: send a Point for every size until memory runs out, and then why else it ended, or None."""
    clock = Clock(device)
    fault = None
    try:
        for size in sizes:
            workload = maker(size, device)
            with _memory_limit(budget if device == "cpu" else None):
                if size == sizes[0] and contender != PACKAGE:
                    agreement.check(workload, contender)
                sender.send(_point(workload, contender, size, clock, device))
    except Exception as error:
        # The CPU's allocator raises a plain RuntimeError.
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        fault = None if out_of_memory else repr(error)
    sender.send(fault)


@contextmanager
def _memory_limit(budget: int | None) -> Iterator[None]:
    """Let the process map only so many bytes more than it has; None: no limit."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if budget is not None:
        resource.setrlimit(resource.RLIMIT_AS, (machine.status_bytes("VmSize") + budget, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _point(workload: Workload, contender: str, size: int, clock: Clock, device: str) -> Point:
    call = partial(workload.run, contender)
    call()
    workload.clear()
    extra = machine.extra_peak_bytes(call, device)
    seconds: list[float] = []
    while len(seconds) < ROUNDS[0] or (len(seconds) < ROUNDS[1] and sum(seconds) < SECONDS_PER_POINT):
        workload.clear()
        seconds.append(clock.seconds(call))
    return Point(size, statistics.median(seconds), extra)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    described = machine.describe(device)
    memory = described["memory_bytes"] if device == "cpu" else described["gpu_memory_bytes"]
    # A GPU sets the limit itself, and gives all it has.
    budget = int((MEMORY_SHARE if device == "cpu" else 1) * (memory or 0))
    curves = []
    for name, (maker, sizes) in CURVES.items():
        for contender in CONTENDERS:
            curve = measure(name, contender, maker, sizes, device, budget)
            curves.append({**asdict(curve), "exponents": curve.exponents()})
            end = f", out of memory at {curve.out_of_memory_at}" if curve.out_of_memory_at else ""
            print(f"{name}, {contender}: exponents {curve.exponents()}{end}")
    path = RESULTS / f"{device}_scaling.json"
    record = {"kind": "scaling", "machine": described, "budget_bytes": budget, "channels": CHANNELS, "curves": curves}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"Curves in {path.name}.")


if __name__ == "__main__":
    main()
