"""open_split: data sets by name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_fast.data import FolderDataset, ProceduralDataset, ProceduralRecipe, has_split, image_transform, open_split

BUSY = ProceduralRecipe(clutter=3.0)
TRANSFORM = image_transform(32, (0.5,) * 3, (0.5,) * 3)


def test_procedural_by_name():
    dataset = open_split("procedural", "test", TRANSFORM, images=3)
    assert isinstance(dataset, ProceduralDataset)
    assert has_split("procedural", "test")
    assert not has_split("procedural", "val")
    assert len(dataset) == 3
    assert dataset[0][0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        open_split("procedural", "val", TRANSFORM)


def test_the_recipe_reaches_the_embedded_data():
    plain, busy = (open_split("procedural", "test", TRANSFORM, images=3, recipe=recipe) for recipe in (None, BUSY))
    assert plain.fingerprint == open_split("procedural", "test", TRANSFORM, images=3).fingerprint != busy.fingerprint


def test_a_folder_and_its_csv(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "val.csv").write_text("path,label,x0,y0,x1,y1\na.png,dog,0,0,4,4\n")
    dataset = open_split(str(tmp_path), "val", TRANSFORM, classes=("cat", "dog"))
    assert isinstance(dataset, FolderDataset)
    assert dataset.labels == (1,)
    assert has_split(str(tmp_path), "val")
    assert not has_split(str(tmp_path), "test")
    with pytest.raises(FileNotFoundError):
        open_split(str(tmp_path), "test", TRANSFORM)


def test_a_name_without_root_or_an_unknown_one_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cub", "cub:", "voc:there"):
        with pytest.raises(FileNotFoundError, match=f"csv names {name}/train.csv"):
            open_split(name, "train", TRANSFORM)


@pytest.mark.slow
def test_train_and_evaluate_on_a_copy_of_cub(
    cli: Callable[..., subprocess.CompletedProcess[str]], cub: Path, tmp_path: Path
) -> None:
    small = ["--epochs", "1", "--hidden", "8", "--classes-per-batch", "2", "--images-per-class", "3"]
    cli("train", tmp_path / "run", "--data", f"cub:{cub}", *small)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["test"]["cam"]
    assert metrics["images"] == 4
    assert metrics["max_box_acc_v2"] is not None
    assert metrics["pxap"] is None
