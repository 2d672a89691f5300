"""Ranks that meet in every step: python missed.py KIND VICTIM. In step 3 the victim stops without dying, is killed, or
has a fault; what the others then say goes to stdout. They wait for three seconds, and three more for each other."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta

import torch

from iir_fast.training import ranks

ranks.LIMIT = timedelta(seconds=3)
ranks.GRACE = timedelta(seconds=3)


def main(kind: str, victim: int) -> None:
    with ranks.joined_ranks("cpu") as joined:
        joined.wait()
        for joined.step in range(1, 6):
            if joined.step == 3 and joined.rank == victim:
                if kind == "fault":
                    raise ValueError("the image bee/3.jpg cannot be read.")
                os.kill(os.getpid(), signal.SIGSTOP if kind == "stopped" else signal.SIGKILL)
            joined.all_true(True, torch.device("cpu"))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except (ValueError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(2)
