"""open_split: data sets by name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_fast.data import (
    ProceduralDataset,
    ProceduralRecipe,
    absolute_source,
    has_split,
    image_transform,
    open_split,
)
from iir_fast.data.sources import parse_source

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
    assert dataset.labels == (1,)
    assert has_split(str(tmp_path), "val")
    assert not has_split(str(tmp_path), "test")
    with pytest.raises(FileNotFoundError):
        open_split(str(tmp_path), "test", TRANSFORM)


def test_a_name_without_root_or_an_unknown_one_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cub", "cub:", "voc:there"):
        with pytest.raises(
            FileNotFoundError, match=f"data names {name}, which is no folder; accepted are .*images:ROOT"
        ):
            open_split(name, "train", TRANSFORM)


def picture(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file)


def test_what_a_folder_holds_tells_how_it_is_read(tmp_path):
    for name in ("ant", "bee"):
        for i in range(3):
            picture(tmp_path / "plain" / name / f"{i}.png")
            picture(tmp_path / "split/train" / name / f"{i}.png")
    assert parse_source(str(tmp_path / "plain")) == ("images", tmp_path / "plain")
    assert parse_source(str(tmp_path / "split")) == ("images", tmp_path / "split")
    assert open_split(str(tmp_path / "split"), "train", TRANSFORM).classes == ("ant", "bee")
    assert not has_split(str(tmp_path / "split"), "test")
    (tmp_path / "plain/labels.csv").write_text("path,label\nant/0.png,0\nbee/0.png,1\nant/1.png,0\nbee/1.png,1\n")
    train, test = (open_split(str(tmp_path / "plain"), split, TRANSFORM) for split in ("train", "test"))
    assert (train.classes, len(train), len(test)) == (("0", "1"), 2, 2)
    assert has_split(str(tmp_path / "plain"), "test")
    (tmp_path / "plain/train.csv").write_text("path,label\nant/0.png,0\nbee/0.png,1\n")
    assert len(open_split(str(tmp_path / "plain"), "train", TRANSFORM)) == 2
    assert not has_split(str(tmp_path / "plain"), "test")


def test_a_folder_that_says_nothing_is_refused_in_a_sentence(tmp_path, cub):
    (tmp_path / "bare").mkdir()
    picture(tmp_path / "bare/1.png")
    with pytest.raises(FileNotFoundError, match=r"bare, which holds no images that have labels; train\.csv, another"):
        open_split(str(tmp_path / "bare"), "train", TRANSFORM)
    for name in ("a.csv", "b.csv"):
        (tmp_path / "bare" / name).write_text("path,label\n1.png,0\n")
    with pytest.raises(FileNotFoundError, match=r"bare/train\.csv, which does not exist"):
        open_split(str(tmp_path / "bare"), "train", TRANSFORM)
    with pytest.raises(ValueError, match=f"data names {cub}, a folder that cub:{cub} reads; write that"):
        open_split(str(cub), "train", TRANSFORM)


def test_the_home_folder_is_expanded_and_a_source_made_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert parse_source("images:~/photos") == ("images", tmp_path / "photos")
    assert [absolute_source(each) for each in ("procedural", "photos", "~/photos", "cub:.", "images:~/photos")] == [
        "procedural",
        f"{tmp_path}/photos",
        f"{tmp_path}/photos",
        f"cub:{tmp_path}",
        f"images:{tmp_path}/photos",
    ]


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
