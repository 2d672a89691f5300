"""The feature cache: right features, computed once, a new key for whatever changes them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from iir_fast.data import ProceduralDataset
from iir_fast.models import create_backbone
from iir_fast.training.features import cache_key, cached_features, default_cache


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


def test_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "iir_fast" / "features"
