"""One run of the suite: what its tests share, and how one row of its table is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import agreement, machine
from benchmarks.clock import Clock, interleave, paired_ratio, rounds_within
from benchmarks.workloads import ALL_PEERS, PACKAGE, STEP, Shape, Workload, make

ROW_SECONDS, PAIRED_SECONDS = 1.5, 6.0
"""Time that the rounds of one row, and the rounds in turns of one shape, are to fill."""
TINY_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Row:
    """One line of the table: a contender on a shape."""

    what: str
    """"step" or the name of an operator."""
    shape: Shape
    contender: str
    peers: tuple[str, ...]
    """All opponents of the package on this shape that can run."""

    def __str__(self) -> str:
        return f"{self.what} {self.shape} {self.contender}"


class Session:
    """Measures rows and keeps the workload of the current shape.

    Args:
        device: "cpu" or "cuda".
        tiny: everything runs once, to see that it works; no figure means anything. torch.compile captures the peers
            but leaves them to its "aot_eager" backend, which spares a minute of compiling C++.
    """

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.clock = Clock(device)
        self._current: tuple[str, Shape] | None = None
        self._workload: Workload | None = None
        self._checked: set[str] = set()

    @cached_property
    def copy_bandwidth(self) -> float:
        """Bytes per second."""
        return machine.copy_bandwidth(self.clock, self.device, TINY_COPY_BYTES if self.tiny else machine.COPY_BYTES)

    @cached_property
    def formulas_agree(self) -> bool:
        """Asked once per run: raises DisagreementError unless they do."""
        agreement.check_formulas(self.device)
        return True

    def measure(self, benchmark: BenchmarkFixture, row: Row) -> None:
        """Time one contender in the group of its shape; the package moreover in turns with all its peers.

        Args:
            benchmark: pytest-benchmark's fixture.
            row: what to time.

        Raises:
            DisagreementError: a peer does not compute what the package computes.
        """
        assert self.formulas_agree
        workload = self._prepare(row)
        call = partial(workload.run, row.contender)
        workload.clear()
        info: dict[str, Any] = {
            "what": row.what,
            "contender": row.contender,
            "name": str(row.shape),
            "shape": row.shape.as_record(),
            "threads": torch.get_num_threads(),
            "bytes_moved": workload.least_bytes,
            "copy_gb_per_s": self.copy_bandwidth / 1e9,
            "extra_peak_bytes": machine.extra_peak_bytes(call, self.device),
        }
        workload.clear()
        if row.contender == PACKAGE:
            info |= self._in_turns(workload, row)

        rounds = 1 if self.tiny else rounds_within(ROW_SECONDS, self.clock.seconds(call))
        benchmark.group = f"{row.what} {row.shape}"
        benchmark.pedantic(call, setup=partial(self._set_up, workload), rounds=rounds)
        workload.clear()
        if self.device == "cuda":
            info["gpu_state"] = machine.gpu_state()
        if benchmark.stats is not None:
            rate = workload.least_bytes / benchmark.stats.stats.median
            info |= {"gb_per_s": rate / 1e9, "percent_of_copy": 100 * rate / self.copy_bandwidth}
        benchmark.extra_info.update(info)

    def _prepare(self, row: Row) -> Workload:
        """The shape's workload, all contenders checked and thereby warm. The workload before it is let go first."""
        if self._workload is None or self._current != (row.what, row.shape):
            self._workload = None
            compiler = ("aot_eager" if self.tiny else "inductor") if row.peers == ALL_PEERS else None
            self._workload = make(row.what, row.shape, self.device, compiler)
            self._current, self._checked = (row.what, row.shape), {PACKAGE}
        for each in row.peers if row.contender == PACKAGE else (row.contender,):
            if each not in self._checked:
                agreement.check(self._workload, each)
                self._checked.add(each)
        return self._workload

    def _in_turns(self, workload: Workload, row: Row) -> dict[str, Any]:
        """Ratios to the package of all its peers and, for the step, of the floor; and all seconds."""
        calls: dict[str, Callable[[], object]] = {each: partial(workload.run, each) for each in (PACKAGE, *row.peers)}
        if row.what == STEP and workload.features is not None:
            calls |= machine.floor_calls(workload.features, workload.inputs[1].detach())
        warm = interleave(calls, workload.clear, self.clock, 1)
        rounds = 1 if self.tiny else rounds_within(PAIRED_SECONDS, sum(map(sum, warm.values())))
        seconds = interleave(calls, workload.clear, self.clock, rounds)
        if row.what == STEP:
            parts = zip(seconds.pop("copy"), seconds.pop("products"), strict=True)
            seconds["floor"] = [machine.COPIES * copy + products for copy, products in parts]
        own = seconds[PACKAGE]
        ratios = {name: paired_ratio(each, own)._asdict() for name, each in seconds.items() if name != PACKAGE}
        return {"in_turns": ratios, "seconds_in_turns": seconds}

    def _set_up(self, workload: Workload) -> None:
        workload.clear()
        self.clock.start()
