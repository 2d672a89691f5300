"""A run that is killed again and again ends with the bits of one that was left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iir_fast.training import RunFolder

SCRIPT = Path(__file__).with_name("killed.py")
KILLS = 24


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_no_bit(start_python, tmp_path):
    alone, after = (
        start_python(SCRIPT, tmp_path / name, kills, 0) for name, kills in (("alone", 0), ("killed", KILLS))
    )
    assert alone.finish().stdout.split() == ["0", "0", "0"]
    status, killed, while_writing = map(int, after.finish().stdout.split())
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
