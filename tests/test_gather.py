"""gather=True with real processes: the loss and its gradients are those of the concatenated batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("gather_rank.py")


def run_ranks(ranks: int, folder: Path) -> list[dict]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = [folder / f"{ranks}-{rank}.pt" for rank in range(ranks)]
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(ranks), str(port), str(file)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.slow
def test_any_number_of_ranks_equals_one_process_on_the_whole_batch(tmp_path):
    (alone,) = run_ranks(1, tmp_path)
    assert alone["gradients"]
    for ranks in (2, 4):
        for result in run_ranks(ranks, tmp_path):
            torch.testing.assert_close(result["loss"], alone["loss"], rtol=1e-12, atol=0)
            torch.testing.assert_close(result["gradients"], alone["gradients"], rtol=1e-10, atol=1e-15)
