"""One run of a comparison, in a process of its own: its time and its memory are its own, and so is a crash.

The process reads its task as a line of JSON, and stops as for Ctrl-C when its standard input ends: whatever becomes of
the process that started it, none is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from iir_fast.app.runs import evaluate_run
from iir_fast.models import MapKind
from iir_fast.training import Interrupted, RunFolder, TrainConfig, pick_device, train

SPLIT = "test"


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: training and evaluation, summed over the pieces of an interrupted run.
        cpu_seconds: the same of the processor, all threads; other work on the machine hardly changes it.
        memory_bytes: peak of the process's resident memory, or of the memory that tensors took on a CUDA device; of
            the most expensive piece.
        device: type of the device, "cpu" or "cuda".
        threads: torch's threads on the CPU.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    device: str
    threads: int


def read_cost(run: RunFolder) -> Cost | None:
    """What a run of a comparison has taken so far; None before its first piece ended."""
    file = _cost_file(run)
    return Cost(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def read_metrics(run: RunFolder, maps: tuple[MapKind, ...]) -> dict[MapKind, dict[str, Any]] | None:
    """The metrics of each of the maps; None unless the run is complete."""
    metrics = run.read_metrics().get(SPLIT, {})
    return {kind: metrics[kind] for kind in maps} if read_cost(run) and all(kind in metrics for kind in maps) else None


def train_and_evaluate(config: TrainConfig, root: Path, maps: tuple[MapKind, ...]) -> None:
    """Start or resume a run, evaluate it on the test split, and keep what it took beside its results."""
    run, device = RunFolder(root), pick_device(config.device)
    run.check(config, "resume")
    before = read_cost(run)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        train(config, root, "resume")
        evaluate_run(root, SPLIT, maps, device=config.device)
    finally:
        if root.is_dir():
            cost = Cost(
                (before.seconds if before else 0.0) + time.perf_counter() - started,
                (before.cpu_seconds if before else 0.0) + time.process_time() - cpu_started,
                max(before.memory_bytes if before else 0, peak_memory(device)),
                device.type,
                torch.get_num_threads(),
            )
            _cost_file(run).write_text(json.dumps(asdict(cost)) + "\n", encoding="utf-8")


def peak_memory(device: torch.device) -> int:
    """Bytes: most that tensors took on a CUDA device, or else the peak of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux it starts with what the parent held when this process was made.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cost_file(run: RunFolder) -> Path:
    return run.root / "cost.json"


def _stop_when_input_ends() -> None:
    # Not sys.stdin: a thread that waits inside its lock would abort the interpreter's exit.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Do the task that standard input names."""
    task = json.loads(sys.stdin.readline())
    # A shell has background processes ignore SIGINT, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_when_input_ends, daemon=True).start()
    torch.set_num_threads(task["threads"])
    try:
        train_and_evaluate(TrainConfig.from_yaml(task["config"]), Path(task["folder"]), tuple(task["maps"]))
    except Interrupted as interruption:
        sys.exit(str(interruption))


if __name__ == "__main__":
    main()
