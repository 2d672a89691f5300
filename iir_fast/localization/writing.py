"""Boxes as JSON, CSV or COCO, written as they are found where the format allows it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TextIO

from iir_fast.localization.predictor import ImageResult

BoxFormat = Literal["json", "csv", "coco"]

CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("path", "width", "height", "label", "class_index", "probability", *CORNERS)


def write_boxes(found: Iterable[ImageResult], out: TextIO, form: BoxFormat, classes: Sequence[str]) -> None:
    """Write every box that was found, with its image, class and probability.

    Where `found` ends with an error, what was found before is still written, as a valid document.

    Args:
        found: the images with their objects.
        out: a text file; of CSV, one that leaves the ends of lines alone (`newline=""`).
        form: "json": a list with one object a line and box, box = x0, y0, x1, y1 in pixels of the image, x1 and y1
            exclusive. "csv": the same with a column for each of the four, and an apostrophe before a text that a
            spreadsheet would run, one that begins with =, +, -, @, a tab or a carriage return. "coco": a COCO data set
            with the box as its bbox x, y, width, height, the probability as its score, and all classes as categories,
            numbered from 1; small entries of all images are kept until the end.
        classes: names of all classes of the model.
    """
    if form == "json":
        _write_json(found, out)
    elif form == "csv":
        _write_csv(found, out)
    else:
        _write_coco(found, out, classes)


def _write_json(found: Iterable[ImageResult], out: TextIO) -> None:
    before = "["
    try:
        for row in _rows(found):
            out.write(f"{before}\n  {json.dumps(row)}")
            before = ","
    finally:
        out.write("[]\n" if before == "[" else "\n]\n")


def _write_csv(found: Iterable[ImageResult], out: TextIO) -> None:
    table = csv.DictWriter(_Lines(out), COLUMNS)
    table.writeheader()
    for row in _rows(found):
        corners = dict(zip(CORNERS, row.pop("box"), strict=True))
        table.writerow({name: inert(value) for name, value in (row | corners).items()})


class _Lines:
    r"""Lines of a CSV that end with \n, written by a `csv` that ends them with \r\n: it quotes what that holds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix("\r\n") + "\n")


def inert(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _rows(found: Iterable[ImageResult]) -> Iterator[dict[str, Any]]:
    for image in found:
        width, height = image.size
        for each in image.objects:
            yield {
                "path": image.path,
                "width": width,
                "height": height,
                "label": each.label,
                "class_index": each.class_index,
                "probability": each.probability,
                "box": each.box,
            }


def _write_coco(found: Iterable[ImageResult], out: TextIO, classes: Sequence[str]) -> None:
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    try:
        for image in found:
            number, (width, height) = image.index + 1, image.size
            images.append({"id": number, "file_name": image.path, "width": width, "height": height})
            for each in image.objects:
                x0, y0, x1, y1 = each.box
                what = {"id": len(boxes) + 1, "image_id": number, "category_id": each.class_index + 1}
                where = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                boxes.append({**what, **where, "iscrowd": 0, "score": each.probability})
    finally:
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
        json.dump({"images": images, "annotations": boxes, "categories": categories}, out)
        out.write("\n")
