"""Boxes in every format, each read back by its own library or by what its documentation says."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from pycocotools.coco import COCO

from iir_fast.localization import BOX_FORMATS, FOLDERS, FoundObject, ImageResult, choose_format, write_boxes
from iir_fast.localization.writing import write_part

CLASSES = ("cat", "dog, large", "cow")


def found(label: int, probability: float, *box: int, outline: object = None) -> FoundObject:
    polygon = None if outline is None else np.array(outline, float)
    return FoundObject(CLASSES[label], label, probability, box, torch.zeros(2, 2), polygon)


IMAGES = [
    ImageResult(0, "photos/a.jpg", (40, 30), (found(1, 0.75, 4, 5, 40, 30), found(0, 0.125, 0, 0, 1, 2))),
    # The second image could not be read.
    ImageResult(2, 'photos/"b",\u00e9.jpg', (20, 10), (found(2, 0.5, 0, 0, 20, 10), found(1, 0.25, 3, 3, 5, 9))),
]


def written(form: str, images: object = IMAGES) -> str:
    out = io.StringIO()
    write_boxes(images, out, form, CLASSES, "run 7, iir-fast 0")
    return out.getvalue()


def in_folder(folder: Path, form: str, images: Sequence[ImageResult] | None = None) -> Path:
    """Write a format of several files, of images that are there."""
    folder.mkdir()
    write_boxes(SHAPED if images is None else images, folder / "out", form, CLASSES, "run 7, iir-fast 0")
    return folder / "out"


TRIANGLE = [(4, 5), (36, 5), (4, 29)]
SHAPED = [
    ImageResult(0, "photos/a.jpg", (40, 30), (found(1, 0.75, 4, 5, 36, 29, outline=TRIANGLE), found(0, 1, 0, 0, 0, 0))),
    ImageResult(1, "photos/b.png", (20, 10), ()),
]
"""A triangle, a constant map, and nothing."""


def test_json_has_a_row_per_box():
    rows = json.loads(written("json"))
    assert rows[0] == {
        "path": "photos/a.jpg",
        "width": 40,
        "height": 30,
        "label": "dog, large",
        "class_index": 1,
        "probability": 0.75,
        "box": [4, 5, 40, 30],
    }
    assert [(row["path"], row["box"]) for row in rows[2:]] == [
        (IMAGES[1].path, [0, 0, 20, 10]),
        (IMAGES[1].path, [3, 3, 5, 9]),
    ]
    assert json.loads(written("json", [])) == []


def test_csv_has_the_same_rows():
    table = list(csv.DictReader(io.StringIO(written("csv"), newline="")))
    for row, expected in zip(table, json.loads(written("json")), strict=True):
        corners = [int(row.pop(name)) for name in ("x0", "y0", "x1", "y1")]
        assert {**row, "box": corners} == {key: each if key == "box" else str(each) for key, each in expected.items()}
    assert written("csv", []) == "path,width,height,label,class_index,probability,x0,y0,x1,y1\n"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_a_csv_is_a_formula(first):
    name = f"{first}cmd|' /C calc'!A0"
    images = [ImageResult(0, f"{name}.jpg", (40, 30), (FoundObject(name, 1, 0.5, (0, 0, 1, 1), torch.zeros(2, 2)),))]
    [row] = csv.DictReader(io.StringIO(written("csv", images), newline=""))
    assert (row["path"], row["label"]) == (f"'{name}.jpg", f"'{name}")
    assert (row["width"], row["class_index"], row["probability"], row["x1"]) == ("40", "1", "0.5", "1")
    assert json.loads(written("json", images))[0]["label"] == name


def test_coco_is_read_by_its_own_tools(tmp_path, capsys):
    (tmp_path / "boxes.json").write_text(written("coco"))
    coco = COCO(str(tmp_path / "boxes.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.imgs[3] == {"id": 3, "file_name": IMAGES[1].path, "width": 20, "height": 10}
    assert sorted(coco.imgs) == [1, 3]
    [first, second] = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert (coco.cats[first["category_id"]]["name"], first["bbox"], first["score"]) == (
        "dog, large",
        [4, 5, 36, 25],
        0.75,
    )
    assert (second["bbox"], second["area"]) == ([0, 0, 1, 2], 2)
    assert len(coco.getAnnIds(catIds=[2])) == 2
    # The annotations alone are results, as COCO's evaluation takes them.
    results = coco.loadRes(coco.loadAnns(coco.getAnnIds()))
    assert len(results.anns) == 4
    assert "Done" in capsys.readouterr().out
    assert coco.dataset["info"]["description"] == "run 7, iir-fast 0"


@pytest.mark.parametrize("form", ["coco", "coco-rle"])
def test_coco_has_segmentations_that_its_own_tools_make_masks_of(form, tmp_path):
    (tmp_path / "boxes.json").write_text(written(form, SHAPED))
    coco = COCO(str(tmp_path / "boxes.json"))
    [triangle] = coco.loadAnns(coco.getAnnIds())
    mask = coco.annToMask(triangle)
    assert mask.shape == (30, 40)
    expected = SHAPED[0].masks[0]
    union = np.logical_or(mask, expected).sum()
    # pycocotools draws the border of a polygon in its own way.
    assert np.logical_and(mask, expected).sum() / union > (0.999 if form == "coco-rle" else 0.9)
    assert triangle["bbox"] == [4, 5, 32, 24]
    assert triangle["area"] == (expected.sum() if form == "coco-rle" else 32 * 24 / 2)
    whole = ImageResult(0, "a.jpg", (4, 3), (found(1, 0.5, 0, 0, 4, 3),))
    (tmp_path / "whole.json").write_text(written(form, [whole]))
    coco = COCO(str(tmp_path / "whole.json"))
    assert coco.annToMask(coco.anns[1]).all()


def test_label_studio_gets_predictions_in_percent():
    first, second = json.loads(written("labelstudio", SHAPED))
    assert first["data"] == {"image": f"/data/local-files/?d={os.path.abspath('photos/a.jpg')[1:]}"}
    [prediction] = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("run 7, iir-fast 0", 0.75)
    [region] = prediction["result"]
    assert region["value"] == {
        "x": pytest.approx(10),
        "y": pytest.approx(100 / 6),
        "width": pytest.approx(80),
        "height": pytest.approx(80),
        "rotation": 0,
        "rectanglelabels": ["dog, large"],
    }
    assert (region["type"], region["from_name"], region["to_name"]) == ("rectanglelabels", "label", "image")
    assert (region["original_width"], region["original_height"], region["score"]) == (40, 30, 0.75)
    assert second["predictions"] == [{"model_version": "run 7, iir-fast 0", "score": 0.0, "result": []}]
    assert json.loads(written("labelstudio", [])) == []


def test_yolo_has_a_line_for_each_object_and_the_images_beside(tmp_path):
    folder = in_folder(tmp_path / "boxes", "yolo")
    # As Ultralytics finds labels: the image's path with the last /images/ replaced and another suffix.
    assert sorted(file.name for file in (folder / "images").iterdir()) == ["00000-a.jpg", "00001-b.png"]
    assert os.readlink(folder / "images/00000-a.jpg") == os.path.abspath("photos/a.jpg")
    number, *shares = (folder / "labels/00000-a.txt").read_text().split()
    assert (number, list(map(float, shares))) == ("1", pytest.approx([20 / 40, 17 / 30, 32 / 40, 24 / 30], abs=1e-6))
    assert (folder / "labels/00001-b.txt").read_text() == ""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data == {"train": "images", "val": "images", "names": dict(enumerate(CLASSES))}
    assert (folder / "data.yaml").read_text().startswith("# Boxes found by run 7, iir-fast 0\n")
    folder = in_folder(tmp_path / "outlines", "yolo-seg")
    number, *shares = (folder / "labels/00000-a.txt").read_text().split()
    corners = np.array(TRIANGLE) / (40, 30)
    assert (number, list(map(float, shares))) == ("1", pytest.approx(corners.ravel(), abs=1e-6))


def test_voc_counts_pixels_from_one_and_its_last_ones_are_inside(tmp_path):
    hostile = ImageResult(2, "photos/a<&>\udcff\x01.jpg", (9, 8), (found(0, 0.5, 0, 0, 9, 8),))
    folder = in_folder(tmp_path / "boxes", "voc", [*SHAPED, hostile])
    root = ElementTree.parse(folder / "Annotations/00000-a.xml").getroot()
    assert root.findtext("filename") == "00000-a.jpg"
    assert (folder / "JPEGImages" / root.findtext("filename")).is_symlink()
    assert root.findtext("path") == os.path.abspath("photos/a.jpg")
    assert root.findtext("source/database") == "run 7, iir-fast 0"
    assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["40", "30", "3"]
    [entry] = root.findall("object")
    assert entry.findtext("name") == "dog, large"
    assert [entry.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")] == ["5", "6", "36", "29"]
    assert ElementTree.parse(folder / "Annotations/00001-b.xml").findall("object") == []
    [file] = (folder / "Annotations").glob("00002*.xml")
    assert ElementTree.parse(file).findtext("filename") == "00002-a<&>\\xff\\x01.jpg"


def test_formats_that_need_a_file_or_a_folder_say_so(tmp_path):
    with pytest.raises(TypeError, match="out is a StringIO; format voc takes the path of a folder"):
        written("voc")
    with pytest.raises(TypeError, match="format json takes an open text file"):
        in_folder(tmp_path / "a", "json")
    pasted = [ImageResult(0, None, (4, 3), ())]
    with pytest.raises(ValueError, match="image number 0 came without a file; images by their paths"):
        in_folder(tmp_path / "b", "yolo", pasted)
    with pytest.raises(ValueError, match="not JSON compliant"):
        written("json", [ImageResult(0, "a.jpg", (4, 3), (found(0, math.nan, 0, 0, 1, 1),))])


def test_the_format_is_that_of_the_suffix_or_the_one_asked_for(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.csv").touch()
    assert choose_format(None) == choose_format(tmp_path / "a.JSON") == choose_format(tmp_path / "pipe") == "json"
    assert choose_format(tmp_path / "b.CSV") == choose_format(tmp_path / "b.txt", "csv") == "csv"
    assert choose_format(tmp_path / "new", "yolo") == "yolo"
    for output, asked, words in [
        (tmp_path / "a.txt", None, r"a\.txt, whose suffix tells no format; accepted are json, csv, coco, coco-rle"),
        (None, "voc", "format voc makes several files; name a folder as output"),
        (tmp_path / "full", "yolo", "full is there; format yolo takes a new or an empty folder"),
        (tmp_path / "full/a.csv", "yolo", "csv is there; format yolo takes a new or an empty folder"),
        (tmp_path / "full", None, "full is a folder; format json takes a file"),
        (tmp_path / "none/a.csv", None, r"none/a\.csv, and there is no folder .*none"),
        (tmp_path / "none/new", "yolo", "and there is no folder .*none"),
    ]:
        with pytest.raises((ValueError, OSError), match=words):
            choose_format(output, asked)


@pytest.mark.parametrize("form", ["json", "csv", "labelstudio"])
def test_rows_are_written_as_images_come(form):
    out = io.StringIO()

    def images() -> Iterator[ImageResult]:
        yield IMAGES[0]
        assert out.getvalue().count("photos/a.jpg") == (1 if form == "labelstudio" else 2)
        yield IMAGES[1]

    write_boxes(images(), out, form, CLASSES)
    assert out.getvalue().count("photos/") == (2 if form == "labelstudio" else 4)


@pytest.mark.parametrize("form", ["json", "csv", "coco", "coco-rle", "labelstudio"])
def test_an_error_leaves_a_valid_document_of_what_came_before(form):
    def images() -> Iterator[ImageResult]:
        yield IMAGES[0]
        raise OSError("the disk is gone")

    out = io.StringIO()
    with pytest.raises(OSError, match="the disk is gone"):
        write_boxes(images(), out, form, CLASSES, "run 7, iir-fast 0")
    if form == "csv":
        assert out.getvalue() == written(form, IMAGES[:1])
    else:
        assert json.loads(out.getvalue()) == json.loads(written(form, IMAGES[:1]))


@pytest.mark.parametrize("form", BOX_FORMATS)
def test_a_part_of_a_data_set_is_what_the_format_is_alone_without_a_data_yaml(form, tmp_path):
    write_part(SHAPED, tmp_path, "val", form, CLASSES, "run 7, iir-fast 0")
    if form not in FOLDERS:
        [file] = tmp_path.iterdir()
        assert file.name == ("val.csv" if form == "csv" else "val.json")
        assert file.read_text() == written(form, SHAPED)
        return
    alone = in_folder(tmp_path / "whole", form)
    names = {file.relative_to(alone) for file in alone.rglob("*")} - {Path("data.yaml")}
    assert {file.relative_to(tmp_path / "val") for file in (tmp_path / "val").rglob("*")} == names
    for name in names:
        if name.suffix in (".txt", ".xml"):
            assert (tmp_path / "val" / name).read_bytes() == (alone / name).read_bytes()
