"""CSVs: reading, classes, masks, and every way a folder can be wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from iir_fast.data import BrokenImageError, LocalizationDataset, listing, open_split
from iir_fast.data.folder import list_folder
from iir_fast.data.images import Header, read_header


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy())


def write(root: Path, lines: str, header: str = "path,label,x0,y0,x1,y1", name: str = "train.csv") -> None:
    (root / name).write_text(f"{header}\n{lines}\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of 20 x 10 pixels, one of them with a mask, and a CSV with four boxes."""
    rng = np.random.default_rng(0)
    for name in ("a/1.jpg", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 20, 3), np.uint8)).save(tmp_path / name)
    mask = np.zeros((10, 20), np.uint8)
    mask[2:4, 3:9] = 255
    (tmp_path / "masks/a").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks/a/1.png")
    write(tmp_path, "a/1.jpg,fox,3,2,9,4\na/2.png,ant,0,0,20,10\na/1.jpg,fox,0.5,1,2,3\nb/3.png,fox,1,1,2,2")
    return tmp_path


def load(root: Path, split: str = "train", **options: Any) -> LocalizationDataset:
    return open_split(str(root), split, to_tensor, **options)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


def test_reads_images_labels_and_boxes(root: Path) -> None:
    data = load(root)
    assert data.classes == ("ant", "fox")
    assert data.ids == ("a/1.jpg", "a/2.png", "b/3.png")
    assert data.labels == (1, 0, 1)
    assert (data.split, data.skipped, len(data)) == ("train", (), 3)
    tensor, label = data[1]
    assert label == 0
    assert torch.equal(tensor, to_tensor(Image.open(root / "a/2.png")))
    truth = data.ground_truth(0)
    assert truth.size == (20, 10)
    assert truth.boxes.dtype == np.float64
    assert truth.boxes.tolist() == [[3, 2, 9, 4], [0.5, 1, 2, 3]]


def test_mask_is_optional(root: Path) -> None:
    data = load(root)
    (mask,) = data.ground_truth(0).masks
    expected = np.zeros((10, 20), bool)
    expected[2:4, 3:9] = True
    assert mask.dtype == np.uint8
    assert np.array_equal(mask != 0, expected)
    assert data.ground_truth(1).masks == ()


def test_box_columns_may_be_absent(root: Path) -> None:
    write(root, "a/1.jpg,fox\nb/3.png,ant", header="path,label")
    assert load(root).ground_truth(1).boxes.shape == (0, 4)


def test_column_order_further_columns_blank_lines_and_byte_order_mark(root: Path) -> None:
    write(root, "7,fox,./a/1.jpg\n\n8,fox,a/1.jpg\n", header="\ufeffshot,label,path")
    data = load(root)
    assert (data.ids, data.classes) == (("a/1.jpg",), ("fox",))


def test_classes_of_the_training_set_are_shared(root: Path) -> None:
    write(root, "b/3.png,fox,1,1,2,2", name="test.csv")
    data = load(root, "test", classes=("ant", "fox"))
    assert (data.labels, data.split) == ((1,), "test")


def test_numbers_as_labels(root: Path) -> None:
    write(root, "a/1.jpg,10\na/2.png,9\nb/3.png,2", header="path,label")
    assert load(root).classes == ("2", "9", "10")
    assert load(root).labels == (2, 1, 0)
    write(root, "a/1.jpg,1\na/2.png,ant\nb/3.png,0", header="path,label")
    assert load(root, classes=("ant", "fox")).labels == (1, 0, 0)
    with pytest.raises(ValueError, match="line 3: label 'ant' is none of"):
        load(root, classes=("0", "1"))


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGBA", "LA"])
def test_every_mode_becomes_rgb(root: Path, mode: str) -> None:
    file = root / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (4, 4), "white").convert(mode).save(file)
    write(root, f"{file.name},fox", header="path,label")
    image = load(root).image(0)
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_are_refused_rather_than_clipped(root: Path) -> None:
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(root / "x.png")
    write(root, "x.png,fox", header="path,label")
    with pytest.raises(BrokenImageError, match=r"x\.png cannot be read: its mode I;16 has more than 8 bits"):
        load(root).image(0)


def test_fingerprint_follows_files_and_labels_not_the_place(root: Path) -> None:
    first = load(root).fingerprint
    moved = root.rename(root.with_name("moved"))
    assert load(moved).fingerprint == first
    os.utime(moved / "b/3.png", ns=(0, 1))
    second = load(moved).fingerprint
    write(moved, "a/1.jpg,fox,3,2,9,4\na/2.png,ant,0,0,20,10\nb/3.png,ant,1,1,2,2")
    assert len({first, second, load(moved).fingerprint}) == 3


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("path,x0,y0,x1,y1", "a/1.jpg,0,0,1,1", "lacks the column label"),
        ("path,label,x0,y0,x1", "a/1.jpg,fox,0,0,1", "lacks the column y1; its header is 'path,label,x0,y0,x1'"),
        ("path,label", "", "lists no image"),
        ("path,label", "a/1.jpg,fox\na/2.png", "line 3: a field is missing or empty"),
        (
            "path,label",
            "a/1.jpg,fox\na/2.png,fox,3",
            "line 3: a line has 2 fields, as the header, got 3; put quotes around",
        ),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,0,0,1,1\na/2.png,fox,,,1,1", "line 3: a field is missing or empty"),
        ("path,label,x0,y0,x1,y1", ",fox,0,0,1,1", "line 2: a field is missing or empty"),
        ("path,label", "a\\1.jpg,fox", r"line 2: path must have / between folders, not \\, got 'a\\\\1.jpg'"),
        ("path,label", "a/1.jpg,fox\na/1.jpg,ant", "line 3: a/1.jpg is labelled 'ant', but 'fox' in line 2"),
        ("path,label", "/a/1.jpg,fox", "line 2: path must be relative"),
        ("path,label", "../1.jpg,fox", "line 2: path must be relative"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,5,0,5,1", "line 2: 0 <= x0 < x1 .* got '5,0,5,1'"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,-1,0,5,1", "line 2: 0 <= x0 < x1"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,0,nan,5,1", "line 2: 0 <= x0 < x1"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,0,left,5,1", "line 2: x0,y0,x1,y1 must be numbers"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,0,0,20,10\na/2.png,fox,0,0,21,10", "line 3: the box 0,0,21,10 leaves"),
        ("path,label,x0,y0,x1,y1", "a/1.jpg,fox,0,0,20,inf", "line 2: the box 0,0,20,inf leaves its image, 20 x 10"),
    ],
)
def test_malformed_csv(root: Path, header: str, lines: str, message: str) -> None:
    write(root, lines, header=header)
    with pytest.raises(ValueError, match=message):
        load(root)


def test_missing_or_undecodable_csv(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"csv names .*val\.csv, which does not exist"):
        load(root, "val")
    (root / "train.csv").write_bytes(b"path,label\n\xff,fox\n")
    with pytest.raises(ValueError, match=r"train\.csv is no CSV in UTF-8 or UTF-16, save it as one: .* byte 0xff"):
        load(root)


@pytest.mark.parametrize(
    "header",
    [
        "xmin,ymin,xmax,ymax",
        "x,y,w,h",
        "x1,y1,x2,y2",
        "x_min,y_min,x_max,y_max",
        "left,top,width,height",
        "X0,Y0,X2,Y2",
        "bbox",
    ],
)
def test_other_names_for_boxes_are_not_passed_over(root: Path, header: str) -> None:
    numbers = ",".join(["1"] * len(header.split(",")))
    write(root, f"a/1.jpg,fox,{numbers}", header=f"path,label,{header}")
    how = r"boxes are read from the columns x0,y0,x1,y1: pixels from the upper left corner, x1 and y1 exclusive; rename"
    with pytest.raises(ValueError, match=f"columns that look like boxes, {header.lower()}; {how}"):
        load(root)


def test_columns_that_are_no_boxes_are_ignored(root: Path) -> None:
    write(root, "a/1.jpg,fox,20,10,7", header="path,label,width,height,x")
    assert load(root).ids == ("a/1.jpg",)
    write(root, "a/1.jpg,fox,0,0,20,10,20,10", header="path,label,x0,y0,x1,y1,w,h")
    assert load(root).ground_truth(0).boxes.tolist() == [[0, 0, 20, 10]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_as_a_spreadsheet_writes_it(root: Path, separator: str, encoding: str, end: str) -> None:
    rows = ["Path, LABEL, X0,Y0 ,X1,Y1,note", "a/1.jpg, fäx, 3, 2,9,4,", "a/2.png,an t,,,,,NOTE", "b/3.png,fäx,,,,,"]
    rows += [",,,,,,", ", ,,,,,", ""]
    lines = [row.replace(",", separator).replace("NOTE", '"a, b; c"') for row in rows]
    (root / "train.csv").write_bytes((end.join(lines) + end).encode(encoding))
    data = load(root)
    assert data.ids == ("a/1.jpg", "a/2.png", "b/3.png")
    assert data.classes == ("an t", "fäx")
    assert [len(data.ground_truth(i).boxes) for i in range(3)] == [1, 0, 0]


def test_an_image_without_a_box_is_counted(root: Path) -> None:
    write(root, "a/1.jpg,fox,3,2,9,4\na/2.png,ant,,,,\nb/3.png,fox,,,,", name="test.csv")
    assert load(root, "test").check() == ("test: 2 of 3 images have no box; they count for the classification alone.",)
    assert load(root).check() == ()


def test_a_photograph_held_otherwise_is_read_upright_unless_told_not_to(root: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 20)).save(root / "phone.jpg", exif=exif)
    write(root, "phone.jpg,fox,0,0,20,30\na/1.jpg,ant,0,0,20,10")
    upright = load(root)
    assert (upright.image(0).size, upright.ground_truth(0).size) == ((20, 30), (20, 30))
    (said,) = upright.check()
    assert said.startswith("train: 1 of 2 images are turned upright, as their EXIF orientation says; boxes are in")
    with pytest.raises(ValueError, match="line 2: the box 0,0,20,30 leaves its image, 30 x 20 pixels"):
        load(root, raw_orientation=True)
    write(root, "phone.jpg,fox,0,0,30,20\na/1.jpg,ant,0,0,20,10")
    stored = load(root, raw_orientation=True)
    assert (stored.image(0).size, stored.ground_truth(0).size, stored.check()) == ((30, 20), (30, 20), ())
    with pytest.raises(ValueError, match="line 2: the box 0,0,30,20 leaves its image, 20 x 30 pixels"):
        load(root)
    write(root, "phone.jpg,fox\na/1.jpg,ant", header="path,label")
    assert load(root).fingerprint != load(root, raw_orientation=True).fingerprint


def test_a_part_of_a_csv_is_held_out(root: Path) -> None:
    (root / "train.csv").rename(root / "labels.csv")
    parts = [load(root, split) for split in ("train", "test")]
    assert sorted(len(part) for part in parts) == [1, 2]
    assert {path for part in parts for path in part.ids} == {"a/1.jpg", "a/2.png", "b/3.png"}
    assert [part.split for part in parts] == ["train", "test"]
    assert parts[0].classes == parts[1].classes == ("ant", "fox")
    assert parts[0].check()[0] == f"{root} is read by labels.csv."


def test_classes_are_checked(root: Path) -> None:
    with pytest.raises(ValueError, match="line 3: label 'ant' is none of the 1 classes"):
        load(root, classes=["fox"])
    with pytest.raises(ValueError, match="classes must not name a class twice"):
        load(root, classes=["fox", "ant", "fox"])


def test_mask_of_another_size(root: Path) -> None:
    Image.new("L", (10, 20)).save(root / "masks/a/1.png")
    with pytest.raises(ValueError, match=r"mask masks/a/1\.png is 10 x 20 pixels, its image a/1\.jpg 20 x 10"):
        load(root)


@pytest.mark.parametrize("header", ["path,label", "path,label,x0,y0,x1,y1"])
def test_missing_image(root: Path, header: str) -> None:
    box = ",0,0,1,1" if "x0" in header else ""
    write(root, f"a/1.jpg,fox{box}\na/9.png,fox{box}", header=header)
    with pytest.raises(BrokenImageError, match=r"a/9\.png cannot be read: No such file") as caught:
        load(root)
    assert caught.value.path == "a/9.png"


def test_broken_images_are_named(root: Path) -> None:
    truncate(root / "a/1.jpg")
    data = load(root)
    with pytest.raises(BrokenImageError, match=r"The image a/1\.jpg cannot be read: "):
        data.image(0)
    # A PNG may say how it is to be turned at its end.
    truncate(root / "b/3.png")
    with pytest.raises(BrokenImageError, match=r"The image b/3\.png cannot be read: "):
        load(root)
    (root / "a/2.png").write_text("no image")
    with pytest.raises(BrokenImageError, match=r"a/2\.png cannot be read: cannot identify image file"):
        load(root)


def test_skip_broken_leaves_out_broken_images_and_says_which(root: Path) -> None:
    truncate(root / "a/1.jpg")
    data = load(root, skip_broken=True)
    assert data.skipped == ("a/1.jpg",)
    assert (data.ids, data.labels, data.classes) == (("a/2.png", "b/3.png"), (0, 1), ("ant", "fox"))
    assert data.ground_truth(1).boxes.tolist() == [[1, 1, 2, 2]]
    (root / "b/3.png").unlink()
    assert load(root, skip_broken=True).skipped == ("a/1.jpg", "b/3.png")
    (root / "a/2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Not one image of the split train can be read; the first is .*a/1"):
        load(root, skip_broken=True)


def test_skip_broken_leaves_out_broken_masks(root: Path) -> None:
    (root / "masks/a/1.png").write_bytes(b"")
    with pytest.raises(BrokenImageError, match=r"masks/a/1\.png"):
        load(root)
    assert load(root, skip_broken=True).skipped == ("a/1.jpg",)


def test_broken_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BrokenImageError("a.jpg", "it is truncated")))
    assert (error.path, str(error)) == ("a.jpg", "The image a.jpg cannot be read: it is truncated")


def test_headers_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(folder: Path, path: str, upright: bool) -> Header:
        opened.append(path)
        return read_header(folder, path, upright)

    monkeypatch.setattr(listing, "read_header", counted)
    data = load(root)
    assert data.check() == data.check()
    assert sorted(opened) == ["a/1.jpg", "a/2.png", "b/3.png", "masks/a/1.png"]


def test_a_path_of_two_lines_is_refused(root: Path) -> None:
    (root / "train.csv").write_text('path,label\n"a\nb.png",ant\n')
    with pytest.raises(ValueError, match=r"train\.csv, line 3: path must be .*, got 'a\\nb\.png'$"):
        list_folder(root, "train")


def test_a_line_without_end_is_not_quoted_whole(root: Path) -> None:
    (root / "train.csv").write_text(f"path,label\n/{'x' * 100_000},ant\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 2: path must be .* \.\.\.$") as caught:
        list_folder(root, "train")
    assert len(str(caught.value)) < 2100
