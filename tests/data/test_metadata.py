"""The field's layout of CUB-200-2011, ILSVRC and OpenImages30k, and what it says of a bad line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from iir_fast.data import BrokenImageError, LocalizationDataset, check_data, has_split, open_split


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())


def load(name: str, root: Path, split: str, **options: Any) -> LocalizationDataset:
    return open_split(f"{name}:{root}", split, to_tensor, **options)


def test_cub(cub: Path) -> None:
    data = load("cub", cub, "test")
    assert data.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert data.ids[0] == "001.Black_footed_Albatross/test_0.jpg"
    assert (data.labels, data.split, len(data)) == ((0, 0, 1, 1), "test", 4)
    truth = data.ground_truth(2)
    assert truth.size == (20, 12)
    assert truth.boxes.dtype == np.float64
    assert truth.boxes.tolist() == [[2, 3, 20, 5]]
    assert (truth.masks, truth.ignore) == ((), None)
    tensor, label = data[3]
    assert torch.equal(tensor, to_tensor(Image.open(cub / "CUB" / data.ids[3])))
    assert label == 1


def test_cub_has_masks_beside_its_boxes_where_they_are_unpacked(cub: Path) -> None:
    grey = np.zeros((12, 20), np.uint8)
    grey[3:5, 2:7] = 51  # not white, but not black
    for path in load("cub", cub, "test").ids:
        file = (cub / "CUB/segmentations" / path).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(file)
    truth = load("cub", cub, "test").ground_truth(2)
    assert [mask.tolist() for mask in truth.masks] == [(grey > 0).tolist()]
    assert (truth.boxes.tolist(), truth.ignore) == ([[2, 3, 20, 5]], None)
    assert load("cub", cub, "val").ground_truth(0).masks == ()
    report = check_data(f"cub:{cub}")
    assert report.faults == ()
    assert any("test has 4 boxes; CUB" in warning for warning in report.warnings)
    file.unlink()
    assert [fault.kind for fault in check_data(f"cub:{cub}").faults] == ["missing mask"]


def test_ilsvrc_is_in_the_order_of_its_wordnet_ids(ilsvrc: Path) -> None:
    assert load("ilsvrc", ilsvrc, "train").classes == tuple(f"n{10 + k:08d}" for k in range(11))
    assert load("ilsvrc", ilsvrc, "train").ground_truth(0).boxes.shape == (0, 4)


def test_val_of_ilsvrc_is_imagenet_v2_and_test_the_official_validation_set(ilsvrc: Path) -> None:
    val, test = load("ilsvrc", ilsvrc, "val"), load("ilsvrc", ilsvrc, "test")
    # Folders come in the order of strings, labels are their numbers.
    assert val.ids[:4] == ("val2/0/0.jpeg", "val2/1/0.jpeg", "val2/10/0.jpeg", "val2/2/0.jpeg")
    assert val.labels[:4] == (0, 1, 10, 2)
    assert test.ids[0] == "val/ILSVRC2012_val_00000001.JPEG"
    assert test.labels[:2] == (7, 3)
    assert val.classes == test.classes == load("ilsvrc", ilsvrc, "train").classes


def test_an_image_may_have_several_boxes_and_one_pixel_is_a_box(ilsvrc: Path) -> None:
    data = load("ilsvrc", ilsvrc, "test")
    assert data.ground_truth(0).boxes.tolist() == [[0, 0, 4, 11], [9, 0, 13, 11], [7, 7, 7, 7]]
    assert data.ground_truth(1).boxes.tolist() == [[0, 0, 4, 11], [9, 0, 13, 11]]


def test_openimages_has_masks_at_their_own_resolution_and_no_sizes(openimages: Path) -> None:
    data = load("openimages", openimages, "test")
    assert data.classes == ("01226z", "0138tl")
    truth = data.ground_truth(1)
    assert truth.size is None
    assert [mask.shape for mask in truth.masks] == [(24, 40), (24, 40)]
    assert [np.flatnonzero(mask[0]).tolist() for mask in truth.masks] == [list(range(10)), list(range(30, 40))]
    assert truth.ignore is not None
    assert truth.ignore.shape == (12, 20)
    assert truth.ignore.all()


def test_ground_truth_of_masks_alone_opens_no_image(openimages: Path) -> None:
    for file in (openimages / "OpenImages").rglob("*.jpg"):
        file.unlink()
    data = load("openimages", openimages, "test")
    assert [len(data.ground_truth(i).masks) for i in range(len(data))] == [2, 2, 2, 2]
    assert load("openimages", openimages, "train").ground_truth(0).masks == ()


def test_sizes_that_no_file_states_are_those_of_the_images_where_boxes_need_them(cub: Path, ilsvrc: Path) -> None:
    sizes = cub / "metadata/CUB/test/image_sizes.txt"
    for _ in ("empty", "absent"):
        sizes.write_text("") if sizes.stat().st_size else sizes.unlink()
        assert load("cub", cub, "test").ground_truth(2).size == (20, 12)
    assert not sizes.exists()
    assert load("ilsvrc", ilsvrc, "train").ground_truth(0).size is None


@pytest.mark.parametrize("name", ["image_sizes", "localization"])
def test_what_is_no_file_is_not_taken_for_an_absent_one(cub: Path, name: str) -> None:
    file = cub / f"metadata/CUB/test/{name}.txt"
    file.unlink()
    for put in (lambda: file.symlink_to("nowhere"), file.mkdir, lambda: os.mkfifo(file)):
        put()
        message = rf"{name}\.txt does not exist or is not a file"
        with pytest.raises(FileNotFoundError, match=message):
            load("cub", cub, "test")
        assert [fault.kind for fault in check_data(f"cub:{cub}").faults] == ["missing file"]
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_training_split_needs_no_annotation_and_may_have_some(cub: Path) -> None:
    file = cub / "metadata/CUB/train/localization.txt"
    lines = file.read_text().splitlines()
    assert load("cub", cub, "train").ground_truth(0).boxes.tolist() == [[2, 3, 20, 4]]
    for some in (lines[1:], []):
        file.write_text("\n".join(some))
        assert load("cub", cub, "train").ground_truth(0).boxes.shape == (0, 4)
        assert len(load("cub", cub, "test")) == 4


def test_the_proxy_of_a_training_split(ilsvrc: Path) -> None:
    proxy = load("ilsvrc-proxy", ilsvrc, "train")
    whole = load("ilsvrc", ilsvrc, "train")
    assert (proxy.ids, proxy.labels) == (whole.ids[1::2], whole.labels[1::2])
    assert proxy.classes == whole.classes
    assert load("ilsvrc-proxy", ilsvrc, "test").ids == load("ilsvrc", ilsvrc, "test").ids
    assert len(open_split(f"ilsvrc-proxy:{ilsvrc}", "train", to_tensor)) == 11
    file = ilsvrc / "metadata/ILSVRC/train/image_ids_proxy.txt"
    file.write_text("train/n00000010/other.JPEG")
    with pytest.raises(ValueError, match=r"class_labels\.txt has no line for .*, which image_ids_proxy\.txt lists"):
        load("ilsvrc-proxy", ilsvrc, "train")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"image_ids_proxy\.txt does not exist"):
        load("ilsvrc-proxy", ilsvrc, "train")


def test_an_image_without_mask_line_and_one_without_ignore_region(openimages: Path) -> None:
    file = openimages / "metadata/OpenImages/test/localization.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0].rpartition(",")[0] + ",", *lines[2:6]]) + "\n")
    data = load("openimages", openimages, "test")
    assert data.ground_truth(0).ignore is None
    assert len(data.ground_truth(0).masks) == 1
    assert (data.ground_truth(3).masks, data.ground_truth(3).ignore) == ((), None)


def test_classes_are_named_by_the_caller_the_training_folders_or_the_labels(cub: Path) -> None:
    assert load("cub", cub, "test", classes=("a", "b", "c")).classes == ("a", "b", "c")
    for file in (cub / "metadata/CUB/train").iterdir():
        file.unlink()
    assert load("cub", cub, "test").classes == ("0", "1")


def test_a_shortened_list_of_images_is_a_smaller_data_set(cub, change_line) -> None:
    change_line(cub / "metadata/CUB/test/image_ids.txt", 1, None)
    assert load("cub", cub, "test").labels == (0, 1, 1)


def test_construction_looks_for_no_image(cub: Path) -> None:
    for file in (cub / "CUB").rglob("*.jpg"):
        file.unlink()
    data = load("cub", cub, "train")
    assert data.ground_truth(0).size == (20, 12)
    with pytest.raises(BrokenImageError, match="No such file"):
        data.image(0)
    with pytest.raises(BrokenImageError, match=r"train_0\.jpg cannot be read: No such file"):
        _ = data.fingerprint


def test_fingerprint_follows_files_and_labels_not_the_place(cub: Path) -> None:
    first = load("cub", cub, "val").fingerprint
    moved = cub.rename(cub.with_name("moved"))
    assert load("cub", moved, "val").fingerprint == first
    os.utime(moved / "CUB/001.Black_footed_Albatross/val_0.jpg", ns=(0, 1))
    assert load("cub", moved, "val").fingerprint != first


def test_skip_broken(openimages: Path) -> None:
    (openimages / "OpenImages/test/01226z/0.jpg").write_bytes(b"no image")
    (openimages / "OpenImages/test/0138tl/1_m2.png").unlink()
    data = load("openimages", openimages, "test", skip_broken=True)
    assert data.skipped == ("test/01226z/0.jpg", "test/0138tl/1.jpg")
    assert data.labels == (0, 1)
    assert len(data.ground_truth(1).masks) == 2


FIRST = "001.Black_footed_Albatross/test_0.jpg"


@pytest.mark.parametrize(
    ("file", "number", "text", "message"),
    [
        ("CUB/test/image_ids.txt", 2, f"{FIRST},0", "line 2: path in UTF-8 is accepted, got '001.*,0'"),
        ("CUB/test/image_ids.txt", 2, "../a.jpg", "line 2: path must be relative to the root and stay below it"),
        ("CUB/test/image_ids.txt", 2, "/a.jpg", "line 2: path must be relative to the root and stay below it"),
        ("CUB/test/image_ids.txt", 2, FIRST, "image_ids.txt, line 2: .*test_0.jpg stands in line 1 already"),
        ("CUB/test/class_labels.txt", 1, FIRST, "class_labels.txt, line 1: path,label in UTF-8 is accepted, got"),
        ("CUB/test/class_labels.txt", 1, f"{FIRST},one", "line 1: label must be a whole number from 0 up, got 'one'"),
        ("CUB/test/class_labels.txt", 1, f"{FIRST},-1", "line 1: label must be a whole number from 0 up, got '-1'"),
        ("CUB/test/class_labels.txt", 1, f"{FIRST},2", "line 1: label must be below 2, got 2"),
        ("CUB/test/class_labels.txt", 1, f"{FIRST},1", "line 1: .* lies in the folder of label 0, got 1"),
        ("CUB/test/class_labels.txt", 2, f"{FIRST},0", "class_labels.txt, line 2: .* stands in line 1 already"),
        (
            "CUB/test/class_labels.txt",
            1,
            None,
            "class_labels.txt has no line for .*test_0.jpg, which image_ids.txt lists",
        ),
        ("CUB/test/image_sizes.txt", 1, f"{FIRST},20,0", "line 1: height must be a whole number from 1 up, got '0'"),
        ("CUB/test/image_sizes.txt", 1, None, "image_sizes.txt has no line for .*test_0.jpg"),
        (
            "CUB/test/localization.txt",
            1,
            f"{FIRST},1,2,3",
            "localization.txt, line 1: path,x0,y0,x1,y1 .* got '.*,1,2,3'",
        ),
        ("CUB/test/localization.txt", 1, f"{FIRST},1,2,3,x", "line 1: x0,y0,x1,y1 must be numbers, got '1,2,3,x'"),
        ("CUB/test/localization.txt", 1, f"{FIRST},4,2,3,5", "line 1: 0 <= x0 <= x1 and .* must hold, got '4,2,3,5'"),
        ("CUB/test/localization.txt", 1, f"{FIRST},0,nan,3,5", "line 1: 0 <= x0 <= x1"),
        (
            "CUB/test/localization.txt",
            1,
            f"{FIRST},0,0,21,5",
            "line 1: the box 0,0,21,5 leaves its image, 20 x 12 pixels",
        ),
        (
            "CUB/train/class_labels.txt",
            1,
            "001.Black_footed_Albatross/train_0.jpg,3",
            "Albatross' has the labels 3 and 0",
        ),
    ],
)
def test_a_bad_line_is_named(cub, change_line, file: str, number: int, text: str | None, message: str) -> None:
    change_line(cub / "metadata" / file, number, text)
    with pytest.raises(ValueError, match=message):
        load("cub", cub, "test")


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (
            2,
            "test/01226z/0.jpg,a.png,b.png",
            "line 2: only an image's first line may name an ignore region, got 'b.png'",
        ),
        (1, "test/01226z/0.jpg,a.png", "line 1: path,mask,ignore in UTF-8 is accepted, got"),
        (1, "test/01226z/0.jpg,,b.png", "line 1: path must be relative to the root and stay below it, got ''"),
        (
            1,
            "test/01226z/0.jpg,../a.png,",
            "line 1: path must be relative to the root and stay below it, got '../a.png'",
        ),
        (1, "test/01226z/0.jpg,1,2,3,4", "line 1: path,mask,ignore in UTF-8 is accepted"),
    ],
)
def test_a_bad_mask_line_is_named(openimages, change_line, number: int, text: str, message: str) -> None:
    change_line(openimages / "metadata/OpenImages/test/localization.txt", number, text)
    with pytest.raises(ValueError, match=message):
        load("openimages", openimages, "test")


def relabel(root: Path, labels: dict[int, int]) -> None:
    file = root / "metadata/ILSVRC/train/class_labels.txt"
    pairs = (line.split(",") for line in file.read_text().splitlines())
    file.write_text("".join(f"{path},{labels.get(int(label), label)}\n" for path, label in pairs))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({0: 1, 1: 0}, "labels must follow the sorted names of the folders; label 0 is 'n00000011', not 'n00000010'"),
        ({10: 12}, "labels must be 0 to K-1 for K classes; up to 12, none is 10, 11"),
        ({1: 0}, "label 0 is given to 'n00000010' and to 'n00000011'"),
    ],
)
def test_labels_in_another_order_than_the_sorted_folders(ilsvrc: Path, labels: dict[int, int], message: str) -> None:
    relabel(ilsvrc, labels)
    with pytest.raises(ValueError, match=message):
        load("ilsvrc", ilsvrc, "train")


def test_missing_and_undecodable_files(cub: Path) -> None:
    labels = cub / "metadata/CUB/test/class_labels.txt"
    labels.write_bytes(labels.read_bytes().replace(b"test_1.jpg,0", b"test_\xff.jpg,0"))
    with pytest.raises(ValueError, match=r"class_labels\.txt, line 2: path,label in UTF-8 is accepted"):
        load("cub", cub, "test")
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"class_labels\.txt does not exist"):
        load("cub", cub, "test")


def test_windows_line_ends_blank_lines_and_byte_order_mark(cub: Path) -> None:
    for file in (cub / "metadata/CUB/test").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load("cub", cub, "test").ground_truth(3).boxes.tolist() == [[2, 3, 20, 5]]


@pytest.mark.parametrize(("name", "images"), [("cub", 4), ("ilsvrc", 11), ("openimages", 4)])
def test_as_a_source(name: str, images: int, request: pytest.FixtureRequest) -> None:
    source = f"{name}:{request.getfixturevalue(name)}"
    data = open_split(source, "test", to_tensor)
    assert len(data) == images
    assert has_split(source, "val")
    assert not has_split(source, "trainval")
    for i in range(images):
        assert data.image(i).size == (20, 12)
        assert data.ground_truth(i).size == (None if name == "openimages" else (20, 12))


@pytest.mark.parametrize("name", ["cub", "ilsvrc", "openimages"])
def test_files_as_they_are_shipped_are_checked_trained_on_evaluated_and_scored(cli, tmp_path, request, name):
    source = f"{name}:{request.getfixturevalue(name)}"
    assert cli("data", "check", source).stdout.endswith("no faults\n")
    run, maps, small = tmp_path / "run", tmp_path / "maps", ["--classes-per-batch", 2, "--images-per-class", 2]
    cli("train", run, "--data", source, "--hidden", 8, "--max-steps", 2, "--validate", "val", *small)
    options = ["--split", "val", "--json"]
    evaluated = json.loads(cli("evaluate", run, "--maps", "both", "--save-maps", maps, *options).stdout)["both"]
    scored = json.loads(cli("score", maps / "both", "--data", source, *options).stdout)
    figures = ["pxap", "piou", "miou"] if name == "openimages" else ["max_box_acc", "max_box_acc_v2", "gt_known_loc"]
    assert [scored[figure] for figure in figures] == [evaluated[figure] for figure in figures]
    assert None not in [scored[figure] for figure in figures]
    assert json.loads((run / "metrics.json").read_text()).keys() == {"test", "val"}
