"""CheckpointFolder: whole files, the last few, the best, and what happens to damaged ones."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from iir_fast.models import CheckpointFolder, NetworkSpec, load_network, read_checkpoint, save_checkpoint

SPEC = NetworkSpec("small_cnn", ("a", "b"), 32, hidden=4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SPEC.build()


@pytest.fixture
def folder(tmp_path, model):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (5, 10, 15):
        folder.save(step, SPEC, model, {"step": step}, keep=2)
    return folder


def test_the_last_few_are_kept_and_the_newest_is_read(folder):
    assert [file.name for file in folder.files()] == ["00000010.pt", "00000015.pt"]
    newest = folder.newest()
    assert newest.training == {"step": 15}
    assert newest.damaged == ()
    assert CheckpointFolder(folder.root / "none").newest() is None


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_checkpoint_gives_way_to_the_one_before_and_is_named(folder, size):
    file = folder.files()[-1]
    os.truncate(file, file.stat().st_size + size if size < 0 else size)
    newest = folder.newest()
    assert newest.training == {"step": 10}
    assert len(newest.damaged) == 1
    assert "00000015.pt cannot be read" in newest.damaged[0]
    os.truncate(folder.files()[0], 7)
    with pytest.raises(ValueError, match=r"not one checkpoint in .* can be read; the newest: .*00000015"):
        folder.newest()


class Trap:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_no_code_of_a_checkpoint_runs(folder, tmp_path):
    file, trap = folder.files()[-1], tmp_path / "trap"
    torch.save({**torch.load(file, weights_only=True), "training": Trap(trap)}, file)
    with pytest.raises(ValueError, match=r"00000015\.pt cannot be read as one of iir_fast: Weights only load failed"):
        read_checkpoint(file)
    assert not trap.exists()
    torch.load(file, weights_only=False)
    assert trap.exists(), "it is a trap"


def test_a_runs_localizer_is_its_newest(folder, model, tmp_path):
    loaded, spec = load_network(tmp_path)
    assert spec == SPEC
    assert torch.equal(loaded.head.weight, model.head.weight)
    with pytest.raises(FileNotFoundError, match=r"run .*checkpoints has no checkpoint in"):
        load_network(folder.root)


def test_the_best_one_outlives_the_others(folder, model):
    folder.keep_as_best(folder.files()[0])
    folder.save(20, SPEC, model, {"step": 20}, keep=1)
    assert sorted(file.name for file in folder.root.iterdir()) == ["00000020.pt", "best.pt"]
    loaded, spec = load_network(folder.best)
    assert spec == SPEC
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_a_full_disk_leaves_what_was_there(folder, model, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"00000020.pt could not be written \(No space left on device\)"):
        folder.save(20, SPEC, model, {"step": 20})
    monkeypatch.undo()
    assert sorted(file.name for file in folder.root.iterdir()) == ["00000010.pt", "00000015.pt"]
    assert folder.newest().training == {"step": 15}


def test_a_write_that_the_system_cuts_off_leaves_what_was_there(tmp_path, model):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, SPEC, model, {"step": 1})
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written"):
            save_checkpoint(file, SPEC, model, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "spec": {**content["spec"], "hidden": "4"}},
        lambda content: {**content, "spec": {**content["spec"], "hidden": 10**30}},
        lambda content: {**content, "spec": {**content["spec"], "hidden": 10**6}},  # 20 GB, if it was built
        lambda content: {**content, "spec": {**content["spec"], "image_size": 0}},
        lambda content: {**content, "spec": {**content["spec"], "classes": (1, 2)}},
        lambda content: {**content, "model": None},
        lambda content: {**content, "model": {**content["model"], "head.bias": 3}},
        lambda content: {**content, "model": {**content["model"], "head.bias": torch.zeros(2, 2).to_sparse()}},
        lambda content: {**content, "model": {**content["model"], "more": torch.zeros(2)}},
        lambda content: {**content, "model": dict(list(content["model"].items())[1:])},
        lambda content: {**content, "model": {**content["model"], "head.bias": torch.zeros(3, 2)}},
    ],
)
def test_a_checkpoint_that_is_none_of_a_network_is_named_in_one_line_and_gives_way(change, folder):
    file = folder.files()[-1]
    torch.save(change(torch.load(file, weights_only=True)), file)
    with pytest.raises(ValueError, match=rf"^checkpoint {file} cannot be read as one of iir_fast: .+$") as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert folder.newest().training == {"step": 10}


def test_a_page_of_the_librarys_advice_is_cut_to_its_first_line(folder):
    file = folder.files()[-1]
    file.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"^checkpoint .*00000015\.pt cannot be read as one of iir_fast: [^\n]+$"):
        read_checkpoint(file)
