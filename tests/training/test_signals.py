"""Signals to real processes: a scheduler's warning, a terminal that is closed, and one that nohup keeps away."""

from __future__ import annotations

import os
import pty
import re
import signal
import time
from pathlib import Path

import pytest

from iir_fast.training import RunFolder

SCRIPT = Path(__file__).with_name("at_terminal.py")
TRAIN = ["--train-images", "800", "--test-images", "20", "--hidden", "8", "--classes-per-batch", "4"]
TRAIN += ["--images-per-class", "4", "--device", "cpu", "--epochs", "400"]
TRAIN += ["--tracker", "tensorboard"]  # its file tells that training has begun
STEPS_PER_EPOCH = 50


def wait_for_training(folder: Path) -> None:
    while not list(folder.glob("events.out.tfevents.*")):
        time.sleep(0.01)


@pytest.mark.slow
def test_a_warning_and_a_closed_terminal_leave_a_checkpoint_and_nohup_holds(start_python, tmp_path):
    terminal, other_end = pty.openpty()
    runs = [tmp_path / name for name in ("closed", "warned")]
    names = os.ttyname(other_end), "nohup"
    closed, warned = (start_python(SCRIPT, name, "train", run, *TRAIN) for name, run in zip(names, runs, strict=True))
    for run in runs:
        wait_for_training(run)
    os.kill(warned.process.pid, signal.SIGHUP)
    os.close(other_end)
    os.close(terminal)
    closed.process.join(120)
    assert closed.process.exitcode is not None
    assert closed.process.exitcode > 0, "ended, and not by the signal"
    assert 0 < RunFolder(runs[0]).checkpoints.newest().training["step"] < 400 * STEPS_PER_EPOCH

    assert warned.process.is_alive()
    os.kill(warned.process.pid, signal.SIGUSR1)
    said = warned.finish(130).stderr
    step = int(re.search(r"stopped at step (\d+) of 20000; resume to go on", said)[1])
    assert RunFolder(runs[1]).checkpoints.newest().training["step"] == step
