"""One process at a time trains in a folder."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from iir_fast.app.lock import locked
from iir_fast.training import RunFolder, TrainConfig

SMALL = ["--train-images", "40", "--test-images", "10", "--hidden", "8", "--epochs", "1", "--images-per-class", "2"]


@pytest.mark.slow
def test_a_second_process_says_who_trains_there_and_changes_nothing(cli, tmp_path):
    cli("train", tmp_path / "run", *SMALL)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert before.keys() >= {tmp_path / "run/metrics.json", tmp_path / "run/config.yaml"}
    holder = f"run is in use by process {os.getpid()} on {socket.gethostname()}; wait until it has ended"
    with RunFolder(tmp_path / "run").locked():
        for option in (["--overwrite"], ["--resume", "auto"]):
            assert holder in cli("train", tmp_path / "run", *SMALL, *option, code=2).stderr
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    cli("train", tmp_path / "run", *SMALL, "--resume", "auto")


def test_opening_is_refused_before_anything_is_computed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(TrainConfig(), "refuse")
    with folder.locked(), pytest.raises(OSError, match="in use by process"):
        folder.check(TrainConfig(), "overwrite")
    with folder.locked():
        (tmp_path / ".lock_owner").write_bytes(b"\xff")
        with pytest.raises(OSError, match="in use by \ufffd; wait"):
            folder.check(TrainConfig(), "overwrite")
    folder.check(TrainConfig(), "overwrite")


def test_the_lock_of_a_dead_process_holds_nobody(tmp_path):
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert f"process {child} on" in (tmp_path / ".lock_owner").read_text()
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock_owner").read_text()
    assert not (tmp_path / ".lock_owner").exists()
