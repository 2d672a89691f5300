"""Trains in child processes that are killed at random moments: python killed.py FOLDER KILLS SEED.

Each child resumes what the one before left. One in three is killed at a random moment after it was started, the others
at a random moment after they were first seen writing a checkpoint. Prints the last child's exit status, how many were
killed, and how many of them while they wrote. Children are forked: they need not import torch again.
"""

from __future__ import annotations

import os
import random
import signal
import stat
import sys
import time
from pathlib import Path

import torch

from iir_fast.data import open_split
from iir_fast.training import TrainConfig, train

LATEST_KILL = 0.15
"""Seconds."""
CONFIG = TrainConfig().with_options(
    train_images=80,
    test_images=20,
    epochs=12,
    classes_per_batch=4,
    images_per_class=4,
    hidden=8,
    flip=True,
    method="cutmix",
    checkpoint_every=1,
    ema_decay=0.9,
)


def main(folder: Path, kills: int, seed: int) -> None:
    # A process with one thread can be forked.
    torch.set_num_threads(1)
    open_split("procedural", "train", lambda image: torch.zeros(0), images=CONFIG.images.train_images)
    draw, killed, while_writing = random.Random(seed), 0, 0
    while True:
        child = os.fork()
        if child == 0:
            _slow_down_writing()
            train(CONFIG, folder, "resume")
            os._exit(0)
        if killed < kills:
            if killed % 3:
                _wait_for_writing(folder, child)
            time.sleep(draw.uniform(0, LATEST_KILL))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
        while_writing += any((folder / "checkpoints").glob("*.part"))
    print(os.waitstatus_to_exitcode(status), killed, while_writing)


def _wait_for_writing(folder: Path, child: int) -> None:
    for remains in (folder / "checkpoints").glob("*.part"):
        remains.unlink()
    while not any((folder / "checkpoints").glob("*.part")):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def _slow_down_writing() -> None:
    """Half of the moments after a checkpoint was begun lie before its end, however slow the machine is."""
    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            time.sleep(LATEST_KILL / 2)
        fsync(descriptor)

    os.fsync = slow_fsync


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
