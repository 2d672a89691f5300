"""A run that is killed again and again ends with the bits of one that was left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iir_fast.training import RunFolder

SCRIPT = Path(__file__).with_name("killed.py")
KILLS = 24


def run(folder: Path, kills: int) -> tuple[int, int, int]:
    command = [sys.executable, str(SCRIPT), str(folder), str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    status, killed, while_writing = map(int, done.stdout.split())
    return status, killed, while_writing


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_no_bit(tmp_path):
    assert run(tmp_path / "alone", 0) == (0, 0, 0)
    status, killed, while_writing = run(tmp_path / "killed", KILLS)
    assert status == 0
    assert killed >= 20
    assert while_writing >= 3
    alone, after = (RunFolder(tmp_path / name).checkpoints.newest() for name in ("alone", "killed"))
    assert alone.path.name == after.path.name == "00000060.pt"
    for one, other in ((alone.model, after.model), (alone.training["weights"], after.training["weights"])):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(alone.model["head.weight"], alone.training["weights"]["head.weight"])
    assert not list((tmp_path / "killed" / "checkpoints").glob("*.part"))
