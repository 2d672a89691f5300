"""Processes, a few at a time, that end when the process that started them does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL = 0.1
"""Seconds between two looks at what is running."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from iir_fast.comparison.worker import main; main()"
)
"""Imports from where this process does, whatever the folder it was started in holds."""


@dataclass(frozen=True)
class Task:
    """A task for a worker.

    Attributes:
        content: what the worker reads, as JSON.
        log: file for all that it prints.
    """

    content: dict[str, Any]
    log: Path


def run_workers(tasks: Sequence[Task], at_once: int) -> Generator[tuple[int, str], None, None]:
    """Run tasks in worker processes.

    Whatever ends the iteration, Ctrl-C too, the workers are asked to stop and waited for. A second Ctrl-C kills them.

    Args:
        tasks: what to do, in this order.
        at_once: how many at a time, 1 or more.

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
    process.stdin.write(json.dumps(task.content) + "\n")
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
