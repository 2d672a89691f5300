"""Training on several processes: the same update as on one, and a run from start to resumption under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from iir_fast.models import NetworkSpec
from iir_fast.training import RunFolder
from iir_fast.training.ranks import Ranks

SCRIPT = Path(__file__).with_name("rank.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
RUN = ["--train-images", "160", "--test-images", "20", "--hidden", "8", "--classes-per-batch", "4"]
RUN += ["--images-per-class", "4", "--device", "cpu", "--checkpoint-every", "3", "--epochs", "6"]


@pytest.mark.slow
def test_updates_on_any_number_of_ranks_are_those_of_one(on_ranks, tmp_path):
    for size in (1, 2, 4):
        on_ranks(size, SCRIPT, tmp_path)
    alone = torch.load(tmp_path / "1-0.pt", weights_only=True)
    assert alone["model"]["prototypes.seen"].all()
    assert alone["fault"] == "classification"
    assert all(gradient.abs().max() > 0 for gradient in alone["gradients"])
    for size in (2, 4):
        for rank in range(size):
            found = torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=True)
            torch.testing.assert_close(found["gradients"], alone["gradients"], rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(found["model"], alone["model"], rtol=1e-10, atol=1e-14)
            # Descriptors are compared everywhere.
            assert found["fault"] == ("classification" if rank == size - 1 else "inter")


@pytest.mark.slow
def test_a_run_under_torchrun_is_interrupted_and_resumed_to_the_same_bits(on_ranks, cli, tmp_path):
    train = ["-m", "iir_fast", "train"]
    assert "".join(on_ranks(2, *train, tmp_path / "whole", *RUN)).count("MaxBoxAccV2") == 1
    process = subprocess.Popen(
        [*TORCHRUN, *train, str(tmp_path / "cut"), *RUN],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    folder = RunFolder(tmp_path / "cut")
    while not folder.checkpoints.files():
        assert process.poll() is None
        time.sleep(0.01)
    # As a terminal does it: everyone in the group.
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    stopped = folder.checkpoints.newest()
    assert 3 <= stopped.training["step"] < 60
    assert len(stopped.training["rng"]) == 2
    again = [tmp_path / "cut", *RUN, "--resume", "auto"]
    on_ranks(2, *train, *again)
    whole, resumed = (RunFolder(tmp_path / name).checkpoints.newest() for name in ("whole", "cut"))
    assert whole.training["step"] == resumed.training["step"] == 60
    assert all(torch.equal(resumed.model[name], value) for name, value in whole.model.items())
    assert "was trained by 2 processes and is to go on with 1" in cli("train", *again, code=2).stderr


def test_batch_norm_is_synchronized_on_gpus_and_refused_elsewhere():
    def norms(model: nn.Module) -> set[type]:
        return {type(each) for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)}

    model = NetworkSpec("small_cnn", ("a", "b"), 32, hidden=4).build()
    Ranks().synchronize_batch_norm(model, torch.device("cpu"))
    assert norms(model) == {nn.BatchNorm2d}
    with pytest.raises(ValueError, match="is set for 2 processes on device cpu; it works on GPUs alone"):
        Ranks(1, 2).synchronize_batch_norm(model, torch.device("cpu"))
    Ranks(1, 2).synchronize_batch_norm(model, torch.device("cuda", 1))
    assert norms(model) == {nn.SyncBatchNorm}


@pytest.mark.slow
def test_what_ranks_refuse_leaves_no_folder(on_ranks, tmp_path):
    on_ranks(2, "-m", "iir_fast", "train", tmp_path / "run", *RUN, "--sync-batch-norm", code=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_all_ranks_end_with_a_sentence_when_one_of_them_does_not_come(start_ranks):
    """The first one holds what the others read of each other: there its end is another case."""
    cases = ("stopped", 0), ("stopped", 2), ("killed", 2), ("fault", 0)
    started = [start_ranks(3, Path(__file__).with_name("missed.py"), *case) for case in cases]
    for (kind, victim), ranks in zip(cases, started, strict=True):
        sentence = (
            f"RuntimeError: rank {victim} is missed in step 3: died, or stopped for 0.05 minutes and more; resume"
        )
        if kind == "fault":
            sentence = f"RuntimeError: rank {victim} has ended training: the image bee/3.jpg cannot be read."
            assert "ValueError: the image bee/3.jpg cannot be read." in ranks[victim].finish(2).stdout.splitlines()
        try:
            said = [rank.finish(2).stdout for number, rank in enumerate(ranks) if number != victim]
        finally:
            ranks[victim].process.kill()
        # The libraries of earlier torches print lines of their own before.
        assert all(any(line.startswith(sentence) for line in each.splitlines()) for each in said), said


def test_one_rank_agrees_with_itself():
    ranks = Ranks()
    assert ranks.is_first
    assert ranks.all_true(True, torch.device("cpu"))
    assert not ranks.all_true(False, torch.device("cpu"))
    assert ranks.gather_objects("x") == ["x"]
    ranks.wait()
