"""One run of a comparison in a process of its own: its time and its memory are its own, and so is a crash.

The process reads its task as a line of JSON, and stops as for Ctrl-C when its standard input ends: whatever becomes of
the process that started it, none is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from iir_fast.app.files import write_whole
from iir_fast.app.runs import evaluate_run
from iir_fast.comparison.baselines import Baseline, evaluate_baseline
from iir_fast.comparison.results import SPLIT, Cost, cost_file, read_cost
from iir_fast.evaluation import Refinement
from iir_fast.models import MapName
from iir_fast.training import Interrupted, RunFolder, TrainConfig, pick_device, train

POLL = 0.1
"""Seconds between two looks at what is running."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from iir_fast.comparison.worker import main; main()"
)
"""Imports from where this process does, whatever the folder it was started in holds."""


@dataclass(frozen=True)
class Task:
    """A run to start or to resume, and to evaluate.

    Attributes:
        folder: of the run; all that the process prints goes to the file `<folder>.log`.
        config: the YAML of its `TrainConfig`.
        maps: the localization maps to evaluate.
        refinements: how they are refined, once in each of these ways.
        threads: of torch.
        baseline: what is evaluated in place of a training; None: the run is trained.
    """

    folder: str
    config: str
    maps: tuple[MapName, ...]
    refinements: tuple[Refinement, ...]
    threads: int
    baseline: Baseline | None = None

    @property
    def log(self) -> Path:
        return Path(f"{self.folder}.log")


def run_workers(tasks: Sequence[Task], at_once: int) -> Generator[tuple[int, str], None, None]:
    """Run tasks in worker processes, in this order, so many at a time.

    Whatever ends the iteration, Ctrl-C too, the workers are asked to stop and waited for. A second Ctrl-C kills them.

    Yields:
        The index of a task that ended, and why it failed, in words; empty if it did not.
    """
    waiting = list(enumerate(tasks))[::-1]
    running: dict[int, subprocess.Popen[str]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, task = waiting.pop()
                running[index] = _start(task)
            for index in [index for index, process in running.items() if process.poll() is not None]:
                process = running.pop(index)
                _end_input(process)
                yield index, _failure(process.returncode, tasks[index].log)
            time.sleep(POLL if running else 0)
    finally:
        try:
            for process in running.values():
                _end_input(process)
            for process in running.values():
                process.wait()
        except KeyboardInterrupt:
            for process in running.values():
                process.kill()
            raise


def _start(task: Task) -> subprocess.Popen[str]:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in a terminal reaches every process of the foreground group; a second signal would not be one stop.
            start_new_session=True,
        )
    assert process.stdin
    process.stdin.write(json.dumps(asdict(task)) + "\n")
    process.stdin.flush()
    return process


def _end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()


def _failure(status: int, log: Path) -> str:
    if status == 0:
        return ""
    if status < 0:
        return f"killed by signal {-status}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")


def main() -> None:
    """Do the task that standard input names."""
    task = Task(**json.loads(sys.stdin.readline()))
    # A shell has background processes ignore SIGINT, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_when_input_ends, daemon=True).start()
    torch.set_num_threads(task.threads)
    try:
        _train_and_evaluate(task)
    except Interrupted as interruption:
        sys.exit(str(interruption))


def _stop_when_input_ends() -> None:
    # Not sys.stdin: a thread that waits inside its lock would abort the interpreter's exit.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _train_and_evaluate(task: Task) -> None:
    """Start or resume the run, evaluate it, and keep what it took beside its results."""
    config, folder = TrainConfig.from_yaml(task.config), RunFolder(Path(task.folder))
    device = pick_device(config.device)
    folder.check(config, "resume")
    before = read_cost(folder) or Cost()
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        if task.baseline:
            evaluate_baseline(folder, config, task.baseline, SPLIT, task.refinements)
        else:
            train(config, folder.root, "resume", evaluated=(SPLIT,))
            with folder.locked():
                for refinement in task.refinements:
                    evaluate_run(folder.root, SPLIT, tuple(task.maps), device=config.device, refinement=refinement)
    finally:
        if folder.root.is_dir():
            cost = Cost(
                before.seconds + time.perf_counter() - started,
                before.cpu_seconds + time.process_time() - cpu_started,
                max(before.memory_bytes, _peak_memory(device)),
                device.type,
                torch.get_num_threads(),
            )
            write_whole(cost_file(folder), json.dumps(asdict(cost)) + "\n")


def _peak_memory(device: torch.device) -> int:
    """Look up in bytes the most that tensors took on a CUDA device, or else that this process had in memory."""
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
