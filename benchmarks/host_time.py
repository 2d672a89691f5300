"""Time what the host does in a training step on a GPU, without one: ``python -m benchmarks.host_time VGPU``.

VGPU is a file that puts Triton's own launcher over a stub of the CUDA driver on CPU tensors. Here that does nothing:
every launch takes its whole way through Triton, and no kernel runs. Shapes are tiny, so that torch's arithmetic costs
next to nothing, for the package and for the batched peer alike. What is left is the time that the host is busy: on a
GPU it launches on while kernels run, and when these are short its time is the step's. CPU time of the thread, in rounds
that take turns. Writes ``results/host_time.md``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from iir_fast import DualCAMHead, IIRLoss

RESULTS = Path(__file__).parent / "results" / "host_time.md"
BATCH, CHANNELS, SIDE, CLASSES = 4, 16, 4, 5
ROUNDS, STEPS, WARM_UP = 40, 10, 5
INTRODUCTION = """# What the host does in a training step

Made by `python -m benchmarks.host_time VGPU`, without a GPU: measured on CPU. Triton's own launcher over a driver that
does nothing, tiny shapes, forward and backward, cross-entropies included. Milliseconds of the thread's CPU time per
step, medians and quartiles of {rounds} rounds of {steps} steps, in which the contenders take turns. *Batched* is label
CAMs and batched products in eager PyTorch, on one shared map with thresholds at the mean; all others have learned ones.

| step | ms | quartiles | of batched |
|---|---:|---:|---:|
"""


class _Branch(nn.Module):
    """A branch that costs nothing: its map is a view of the shared one."""

    def forward(self, features: Tensor) -> Tensor:
        return features.view_as(features)


def package_step(branches: bool) -> Callable[[], None]:
    """Head and loss with learned thresholds, forward and backward."""
    head, regulation = DualCAMHead(CHANNELS, CLASSES, hidden=None), IIRLoss()
    if branches:
        head.branches = nn.ModuleList([_Branch(), _Branch()])
    features, labels = _inputs()

    def step() -> None:
        out = head(features, labels)
        loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels) + regulation(out)
        loss.backward()
        for each in (features, *head.parameters()):
            each.grad = None

    return step


def peer_step() -> Callable[[], None]:
    """The batched peer's step, forward and backward."""
    features, labels = _inputs()
    weights = torch.randn(2, CLASSES, CHANNELS).requires_grad_()
    biases = torch.zeros(2, CLASSES).requires_grad_()

    def step() -> None:
        peers.step_with_contractions(features, weights, biases, labels).backward()
        for each in (features, weights, biases):
            each.grad = None

    return step


def _inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, CHANNELS, SIDE, SIDE).requires_grad_(), torch.arange(BATCH) // 2


def activate(path: str) -> None:
    """Make launches go through Triton to a driver that does nothing."""
    specification = importlib.util.spec_from_file_location("vgpu", path)
    if specification is None or specification.loader is None:
        sys.exit(f"{path} is not a Python file.")
    sys.path.insert(0, str(Path(path).parent))
    tool: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    driver = tool.activate(90)
    driver.launcher_cls = tool.nvidia.CudaLauncher
    # Any function of the stub that returns 0.
    nothing = tool.RUN(ctypes.cast(driver._library.cuInit, ctypes.c_void_p).value)
    driver._library.vgpu(nothing, 90, *tool.LIMITS[90])
    driver.nothing = nothing


def measure(steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Milliseconds per step, by contender, of every round."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            begin = time.thread_time()
            for _ in range(STEPS):
                step()
            found[name].append((time.thread_time() - begin) / STEPS * 1e3)
    return found


def main(path: str) -> None:
    torch.set_num_threads(1)
    activate(path)
    steps = {
        "both classifiers on the shared map": package_step(branches=False),
        "branches": package_step(branches=True),
        "batched": peer_step(),
    }
    # On a GPU labels are not looked at.
    with patch("iir_fast.kernels.label_cam.check_range", lambda *arguments: None):
        found = measure(steps)
    lines = []
    for name, times in found.items():
        low, median, high = statistics.quantiles(times, n=4)
        ratio = statistics.median(one / other for one, other in zip(times, found["batched"], strict=True))
        lines.append(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} | {ratio:.2f} |")
    RESULTS.write_text(INTRODUCTION.format(rounds=ROUNDS, steps=STEPS) + "\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, f"table in {RESULTS}.", sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
