"""Oxford-IIIT Pet: boxes and masks from trimaps, on a small copy of the layout that torchvision unpacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import OxfordIIITPet

from iir_fast.data import BrokenImageError, LocalizationDataset, has_split, open_split


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())


def load(root: Path, split: str = "train", **options: Any) -> LocalizationDataset:
    return open_split(f"pet:{root}", split, to_tensor, **options)


@pytest.mark.parametrize(("split", "official"), [("train", "trainval"), ("test", "test")])
def test_agrees_with_torchvision(pet: Path, split: str, official: str) -> None:
    data = load(pet, split)
    expected = OxfordIIITPet(pet, official, target_types=["category", "segmentation"])
    assert list(data.classes) == expected.classes == ["Abyssinian", "American Bulldog"]
    assert len(data) == len(expected)
    for i, (image, (label, trimap)) in enumerate(expected):
        assert torch.equal(data[i][0], to_tensor(image))
        assert data.labels[i] == label
        truth = data.ground_truth(i)
        assert np.array_equal(truth.masks[0], np.asarray(trimap) == 1)
        assert truth.ignore is not None
        assert np.array_equal(truth.ignore, np.asarray(trimap) == 3)


def test_the_box_holds_object_and_undecided_band(pet: Path) -> None:
    truth = load(pet).ground_truth(0)
    assert truth.size == (20, 12)
    assert truth.boxes.tolist() == [[4, 3, 12, 9]]
    assert truth.boxes.dtype == np.float64


def test_what_is_wrong_with_a_trimap_is_named(pet: Path) -> None:
    trimaps = pet / "oxford-iiit-pet/annotations/trimaps"
    data = load(pet)
    Image.fromarray(np.full((20, 12), 2, np.uint8)).save(trimaps / "Abyssinian_1.png")
    with pytest.raises(ValueError, match=r"Abyssinian_1\.png is 12 x 20 pixels, its image .* 20 x 12"):
        data.ground_truth(0)
    Image.fromarray(np.full((12, 20), 255, np.uint8)).save(trimaps / "Abyssinian_2.png")
    with pytest.raises(BrokenImageError, match=r"Abyssinian_2\.png .* the values 1, 2 and 3 only"):
        data.ground_truth(1)
    Image.fromarray(np.full((12, 20), 2, np.uint8)).save(trimaps / "Abyssinian_3.png")
    assert data.ground_truth(2).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("split", "number", "text", "message"),
    [
        ("test", 1, "Abyssinian_101 1 1", r"test\.txt, line 1: image breed species number in UTF-8 is accepted, got"),
        ("test", 1, "Abyssinian_101 0 1 1", "line 1: breed must be a whole number from 1 up, got '0'"),
        ("test", 1, "Abyssinian_101 2 1 1", "line 1: breed 2 is not that of 'Abyssinian' in the training split"),
        ("test", 2, "Abyssinian_101 1 1 1", "line 2: Abyssinian_101 is listed already"),
        ("test", 2, "../Abyssinian_101 1 1 1", "line 2: path must be relative"),
        ("trainval", 1, "Abyssinian_1 2 1 1", r"trainval\.txt: 'Abyssinian' has the labels 1 and 0"),
    ],
)
def test_a_bad_line_is_named(pet, change_line, split: str, number: int, text: str, message: str) -> None:
    change_line(pet / f"oxford-iiit-pet/annotations/{split}.txt", number, text)
    with pytest.raises(ValueError, match=message):
        load(pet, "test")


def test_downloads_where_a_part_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(self: OxfordIIITPet) -> None:
        asked.append(self.root)
        raise OSError("no route to host")

    monkeypatch.setattr(OxfordIIITPet, "_download", download)
    with pytest.raises(OSError, match=r"Oxford-IIIT Pet cannot be downloaded: no route to host\. With both of them"):
        load(tmp_path)
    (tmp_path / "oxford-iiit-pet/images").mkdir(parents=True)  # as an interrupted download leaves it
    with pytest.raises(OSError, match=r"oxford-iiit-pet lacks images/ or annotations/"):
        load(tmp_path)
    assert asked == [tmp_path] * 2


def test_as_a_source(pet: Path) -> None:
    assert has_split(f"pet:{pet}", "test")
    assert not has_split(f"pet:{pet}", "val")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        open_split(f"pet:{pet}", "val", to_tensor)


def test_skip_broken(pet: Path) -> None:
    (pet / "oxford-iiit-pet/annotations/trimaps/Abyssinian_2.png").write_bytes(b"")
    data = load(pet, skip_broken=True)
    assert data.skipped == ("images/Abyssinian_2.jpg",)
    assert data.labels == (0, 0, 1, 1, 1)
