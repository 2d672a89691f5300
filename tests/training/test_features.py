"""The feature cache: right features, computed once, a new key for whatever changes them."""

from __future__ import annotations

import errno
import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from iir_fast.data import ProceduralDataset
from iir_fast.models import create_backbone
from iir_fast.training.features import cache_key, cached_features


def make() -> tuple[torch.nn.Module, ProceduralDataset]:
    torch.manual_seed(0)
    return create_backbone("small_cnn").eval(), ProceduralDataset("test", 10)


def test_features_are_computed_once_and_then_read(tmp_path):
    backbone, dataset = make()
    seen = []
    loader = DataLoader(dataset, 4)
    first = cached_features(backbone, dataset, loader, 64, tmp_path, seen.append)
    assert seen == [4, 4, 2]
    second = cached_features(backbone, dataset, [], 64, tmp_path, seen.append)
    assert seen == [4, 4, 2]
    images = torch.stack([dataset[i][0] for i in range(10)])
    with torch.no_grad():
        expected = backbone(images)
    for cached in (first, second):
        maps, labels = cached.__getitems__([7, 0, 3])
        torch.testing.assert_close(maps, expected[[7, 0, 3]], rtol=1e-4, atol=1e-5)
        assert labels.tolist() == [7, 0, 3]
        assert torch.equal(cached[7][0], maps[0])
    assert len(list(tmp_path.iterdir())) == 1


def test_the_key_follows_all_that_decides_the_features():
    backbone, dataset = make()
    keys = {cache_key(backbone, 64, dataset), cache_key(backbone, 32, dataset)}
    keys.add(cache_key(backbone, 64, ProceduralDataset("test", 10, seed=1)))
    with torch.no_grad():
        next(backbone.parameters())[0, 0, 0, 0] += 1e-3
    keys.add(cache_key(backbone, 64, dataset))
    assert len(keys) == 4
    assert cache_key(*(lambda b, d: (b, 64, d))(*make())) in keys


def test_a_failed_computation_leaves_nothing_behind(tmp_path):
    backbone, dataset = make()
    with pytest.raises(RuntimeError, match="4 of 10 images were read"):
        cached_features(backbone, dataset, list(DataLoader(dataset, 4))[:1], 64, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_space_is_taken_before_the_first_batch_is_written(tmp_path, monkeypatch):
    def no_space(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    backbone, dataset = make()
    seen = []
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(
        OSError, match=r"has no room for [\d,]+ bytes of features \(No space left on device\); make room"
    ):
        cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path, seen.append)
    assert seen == []
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_numpys_and_as_large_as_the_space_taken(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda *arguments: taken.append(arguments[1:]))
    backbone, dataset = make()
    cached = cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path)
    [file] = tmp_path.iterdir()
    assert taken == [(0, file.stat().st_size)]
    assert np.array_equal(np.load(file), cached.maps)


def test_what_a_killed_process_left_is_removed(tmp_path):
    backbone, dataset = make()
    loader = DataLoader(dataset, 4)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        cached_features(backbone, dataset, loader, 64, tmp_path, lambda images: os.kill(os.getpid(), signal.SIGKILL))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.suffix == ".part"
    cached_features(backbone, dataset, loader, 64, tmp_path)
    [file] = tmp_path.iterdir()
    assert file.suffix == ".npy"


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_file_is_set_aside_and_made_again(size, tmp_path, capsys):
    backbone, dataset = make()
    expected = np.array(cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path).maps)
    [file] = tmp_path.iterdir()
    os.truncate(file, size)
    assert np.array_equal(cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path).maps, expected)
    assert f"feature cache {file} is damaged: " in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == [file.name, f"{file.name}.damaged-1"]


def test_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backbone, dataset = make()
    cached_features(backbone, dataset, DataLoader(dataset, 4), 64)
    assert [file.suffix for file in (tmp_path / "iir_fast" / "features").iterdir()] == [".npy"]


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((10, 2, 3, 3)),
        np.zeros(10, np.float32),
        np.float32(1),
        b"\x93NUMPY\x01\x00\x10\x00\"\"\"escr': '<f4' \n",
    ],
    ids=["float64", "one number each", "one number", "header"],
)
def test_a_file_of_something_else_is_set_aside_and_made_again(odd, tmp_path, capsys):
    backbone, dataset = make()
    expected = np.array(cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path).maps)
    [file] = tmp_path.iterdir()
    if isinstance(odd, bytes):
        file.write_bytes(odd)
    else:
        np.save(file, odd)
    assert np.array_equal(cached_features(backbone, dataset, DataLoader(dataset, 4), 64, tmp_path).maps, expected)
    assert f"feature cache {file} is damaged: " in capsys.readouterr().err
