"""images:ROOT, one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from iir_fast.data import BrokenImageError, LocalizationDataset, SplitSummary, check_data, has_split, open_split


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())


def load(root: Path, split: str = "train", **options: Any) -> LocalizationDataset:
    return open_split(f"images:{root}", split, to_tensor, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images in three classes to train on, two images in two of them to test on."""
    train = ("fox/2.png", "fox/1.JPEG", "Bee/deep/er/1.webp", "Bee/1.jpg", "10/a.b.bmp")
    for number, path in enumerate((*(f"train/{each}" for each in train), "test/fox/1.png", "test/10/1.png")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 12), (40 * number, 0, 0)).save(tmp_path / path)
    for path in ("train/readme.txt", "train/fox/notes.txt", "train/fox/._1.jpg", "train/.cache/x/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"no image")
    return tmp_path


def test_images_labels_and_classes(root: Path) -> None:
    data = load(root)
    assert data.classes == ("10", "Bee", "fox")
    names = ("10/a.b.bmp", "Bee/1.jpg", "Bee/deep/er/1.webp", "fox/1.JPEG", "fox/2.png")
    assert data.ids == tuple(f"train/{name}" for name in names)
    assert data.labels == (0, 1, 1, 2, 2)
    assert [data.image(i).size[0] for i in range(5)] == [24, 23, 22, 21, 20]
    truth = data.ground_truth(0)
    assert (truth.size, truth.boxes.shape, truth.masks) == ((24, 12), (0, 4), ())
    assert has_split(f"images:{root}", "test")
    assert not has_split(f"images:{root}", "val")


def test_labels_are_those_of_torchvision(root: Path) -> None:
    for path in ("train/.cache/x/1.png", "train/fox/._1.jpg"):
        (root / path).unlink()
    for folder in ("train/.cache/x", "train/.cache"):
        (root / folder).rmdir()
    data, peer = load(root), ImageFolder(str(root / "train"))
    assert data.classes == tuple(peer.classes)
    labels = {os.path.relpath(path, root): label for path, label in peer.samples}
    assert dict(zip(data.ids, data.labels, strict=True)) == labels


def test_the_training_split_gives_the_classes(root: Path) -> None:
    assert load(root, "test").classes == ("10", "Bee", "fox")
    assert load(root, "test").labels == (0, 2)
    assert load(root, "test", classes=("fox", "10")).labels == (1, 0)
    (root / "test/fox").rename(root / "test/ox")
    with pytest.raises(ValueError, match=r"test/ox is none of the 3 classes of the training split"):
        load(root, "test")
    (root / "train").rename(root / "learn")
    assert load(root, "test").classes == ("10", "ox")


def test_without_splits_a_fifth_of_each_class_is_held_out(root: Path) -> None:
    whole = root / "train"
    source = f"images:{whole}"
    train, test = (open_split(source, split, to_tensor) for split in ("train", "test"))
    assert train.classes == test.classes == ("10", "Bee", "fox")
    assert (train.labels, test.labels) == ((0, 1, 2), (1, 2))
    assert {*train.ids, *test.ids} == {"10/a.b.bmp", "Bee/1.jpg", "Bee/deep/er/1.webp", "fox/1.JPEG", "fox/2.png"}
    assert test.image(0).size[1] == 12
    assert [has_split(source, split) for split in ("train", "val", "test")] == [True, False, True]
    seeds = [open_split(source, "test", to_tensor, seed=seed).ids for seed in range(8)]
    assert len(set(seeds)) > 1
    assert load(whole, "test", seed=3).ids == seeds[3]
    report = check_data(str(whole))
    assert report.faults == ()
    assert [each.images for each in report.splits] == [3, 2]
    said = f"{whole} has no splits: 20% of each class, 2 of 5 images, are held out as test (seed 0)."
    assert report.warnings.count(said) == 1


def test_links_to_folders_are_followed(root: Path) -> None:
    (root / "train/fox").rename(root / "elsewhere")
    (root / "train/fox").symlink_to(root / "elsewhere", target_is_directory=True)
    assert load(root).ids[3:] == ("train/fox/1.JPEG", "train/fox/2.png")


def test_what_is_not_there_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"/val does not exist or is not a folder"):
        load(root, "val")
    (root / "val").mkdir()
    with pytest.raises(FileNotFoundError, match=r"/val holds no folder; one per class is needed"):
        load(root, "val")
    (root / "train/cat").mkdir()
    with pytest.raises(ValueError, match=r"train/cat holds no image; files that end in \.jpg, "):
        load(root)
    (root / "train/cat").rmdir()
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*train/Bee/deep"):
        load(root)


def test_broken_images(root: Path) -> None:
    (root / "train/Bee/1.jpg").write_bytes(b"no image")
    with pytest.raises(BrokenImageError, match=r"The image train/Bee/1\.jpg cannot be read: cannot identify"):
        load(root).image(1)
    data = load(root, skip_broken=True)
    assert data.skipped == ("train/Bee/1.jpg",)
    assert data.labels == (0, 1, 2, 2)


def test_check(root: Path) -> None:
    report = check_data(f"images:{root}", decode=True)
    assert report.faults == ()
    assert report.splits == (SplitSummary("train", 5, 3, 1, 2, 0, 0), SplitSummary("test", 2, 2, 0, 1, 0, 0))
    assert report.warnings == (
        f"{root} is read as class folders by split: train, test.",
        f"{root}/train: left out 2 files without the suffix of an image: readme.txt, fox/notes.txt.",
        "test has neither boxes nor masks: it can be classified, not localized",
    )
    (root / "train/cat").mkdir()
    (root / "test/cow").mkdir()
    (root / "train/fox/3.png").write_bytes(b"no image")
    kinds = [fault.kind for fault in check_data(f"images:{root}").faults]
    assert kinds == ["missing image", "label", "unreadable image"]
