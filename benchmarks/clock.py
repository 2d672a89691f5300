"""How time is taken: wall time on the CPU, device events on CUDA; contenders in turns, because machines are noisy."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

MIN_ROUNDS, MAX_ROUNDS = 7, 30
LEAD_SECONDS, FILLS_TIMED = 5e-3, 10
"""How long a GPU is kept busy before a call, so that the host can enqueue all of it; a step takes it a few ms."""


class Clock:
    """A timer that is read right before and right after one call, after `start`.

    On CUDA `start` overwrites the L2 cache, again and again for `LEAD_SECONDS`, and leaves an event behind; the second
    reading waits for the device. The host enqueues the call while the cache is still being overwritten, as it is ahead
    of the device in training: what is taken is the device's own time, without waits for launches.
    """

    def __init__(self, device: str) -> None:
        self._on_device = device == "cuda"
        self._scratch: torch.Tensor | None = None
        self._fills = 0
        self._started: torch.cuda.Event | None = None
        self._first = True

    def start(self) -> None:
        """Prepare the next two readings."""
        if self._on_device:
            if self._scratch is None:
                size = 4 * torch.cuda.get_device_properties(0).L2_cache_size
                self._scratch = torch.empty(size, dtype=torch.uint8, device="cuda")
                self._fills = self._fills_within(LEAD_SECONDS, self._scratch)
            for _ in range(self._fills):
                self._scratch.fill_(1)
            self._started = torch.cuda.Event(enable_timing=True)
            self._started.record()
            self._first = True

    @staticmethod
    def _fills_within(seconds: float, scratch: torch.Tensor) -> int:
        scratch.fill_(1)  # the first one loads the kernel
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(FILLS_TIMED):
            scratch.fill_(1)
        after.record()
        after.synchronize()
        return math.ceil(1000 * FILLS_TIMED * seconds / float(before.elapsed_time(after)))

    def read(self) -> float:
        """Seconds since some moment."""
        if self._started is None:
            return time.perf_counter()
        if self._first:
            self._first = False
            return 0.0
        stopped = torch.cuda.Event(enable_timing=True)
        stopped.record()
        stopped.synchronize()
        return float(self._started.elapsed_time(stopped)) / 1000

    def seconds(self, call: Callable[[], object]) -> float:
        """How long one call takes."""
        self.start()
        before = self.read()
        call()
        return self.read() - before


def interleave(
    calls: Mapping[str, Callable[[], object]], prepare: Callable[[], None], clock: Clock, rounds: int
) -> dict[str, list[float]]:
    """Time all calls in every round, in turns and back: what the machine does to one, it does to all.

    Args:
        calls: name -> what is timed; warm.
        prepare: called before each of them, not timed.
        clock: takes the time.
        rounds: how often.

    Returns:
        Name -> seconds of every round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            prepare()
            seconds[name].append(clock.seconds(calls[name]))
    prepare()
    return seconds


def rounds_within(budget: float, seconds: float) -> int:
    """How many rounds of so many seconds fit into a budget; at least `MIN_ROUNDS`, at most `MAX_ROUNDS`."""
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(budget / seconds)))


class Ratio(NamedTuple):
    """How many times as long as the package something takes, over paired rounds."""

    median: float
    first_quartile: float
    third_quartile: float
    rounds: int


def paired_ratio(seconds: list[float], package: list[float]) -> Ratio:
    """Ratio of two contenders that were timed in the same rounds."""
    ratios = [other / own for other, own in zip(seconds, package, strict=True)]
    first, median, third = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median, first, third, len(ratios))
