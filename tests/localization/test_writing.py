"""Boxes as JSON, CSV and COCO."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest
import torch
from pycocotools.coco import COCO

from iir_fast.localization import FoundObject, ImageResult, write_boxes

CLASSES = ("cat", "dog, large", "cow")


def found(label: int, probability: float, *box: int) -> FoundObject:
    return FoundObject(CLASSES[label], label, probability, box, torch.zeros(2, 2))


IMAGES = [
    ImageResult(0, "photos/a.jpg", (40, 30), (found(1, 0.75, 4, 5, 40, 30), found(0, 0.125, 0, 0, 1, 2))),
    # The second image could not be read.
    ImageResult(2, 'photos/"b",\u00e9.jpg', (20, 10), (found(2, 0.5, 0, 0, 20, 10), found(1, 0.25, 3, 3, 5, 9))),
]


def written(form: str, images: object = IMAGES) -> str:
    out = io.StringIO()
    write_boxes(images, out, form, CLASSES)
    return out.getvalue()


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


@pytest.mark.parametrize("form", ["json", "csv"])
def test_rows_are_written_as_images_come(form):
    out = io.StringIO()

    def images() -> Iterator[ImageResult]:
        yield IMAGES[0]
        assert out.getvalue().count("photos/a.jpg") == 2
        yield IMAGES[1]

    write_boxes(images(), out, form, CLASSES)
    assert out.getvalue().count("photos/") == 4


@pytest.mark.parametrize("form", ["json", "csv", "coco"])
def test_an_error_leaves_a_valid_document_of_what_came_before(form):
    def images() -> Iterator[ImageResult]:
        yield IMAGES[0]
        raise OSError("the disk is gone")

    out = io.StringIO()
    with pytest.raises(OSError, match="the disk is gone"):
        write_boxes(images(), out, form, CLASSES)
    if form == "csv":
        assert out.getvalue() == written(form, IMAGES[:1])
    else:
        assert json.loads(out.getvalue()) == json.loads(written(form, IMAGES[:1]))
