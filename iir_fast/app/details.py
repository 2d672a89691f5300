"""What becomes of every image and of every class, as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from iir_fast.app.files import write_whole
from iir_fast.app.tables import inert
from iir_fast.evaluation import ERRORS, V1_DELTA, Verdict

IMAGES, CLASSES = "images.csv", "classes.csv"
IMAGE_COLUMNS = ("map", "image", "class", "predicted", "iou", "threshold", "error")
CLASS_COLUMNS = (
    *("map", "class", "images", "with_boxes", "gt_known_loc", "top1_loc", "top1_accuracy"),
    *(f"error: {kind}" for kind in ERRORS),
)


class JudgedImage(NamedTuple):
    """A line of `images.csv`."""

    image: str
    name: str
    """Of its class."""
    is_classified: bool | None
    """Whether its class was predicted; None where nothing was."""
    is_localized: bool | None
    """Whether its box is right, GT-known; None where there is no true box."""


def write_details(folder: Path, verdicts: Mapping[str, Sequence[Verdict]], classes: Sequence[str]) -> None:
    """Write `images.csv`, a line for each image under each map, and `classes.csv`, a line for each class.

    Numbers have every digit, and shares are in percent. What the data does not allow is empty. An apostrophe goes
    before a text that a spreadsheet would run. The folder is there; `verdicts` are what became of the images by map.
    """
    write_whole(folder / IMAGES, _csv(IMAGE_COLUMNS, _image_rows(verdicts, classes)))
    write_whole(folder / CLASSES, _csv(CLASS_COLUMNS, _class_rows(verdicts, classes)))


def collect(verdicts: list[Verdict], on_image: Callable[[int], None]) -> Callable[[Verdict], None]:
    """Make what keeps verdicts as they come, and calls `on_image` with 1 for each."""

    def keep(verdict: Verdict) -> None:
        verdicts.append(verdict)
        on_image(1)

    return keep


def read_images(path: Path) -> dict[str, list[JudgedImage]]:
    """Read `images.csv`, or that of a folder: the name of each map with its images, in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such CSV, or holds an image twice or none; the message names file and line.
    """
    file = path / IMAGES if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist or is not a file; `evaluate --details` writes one.")
    found: dict[str, dict[str, JudgedImage]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if tuple(reader.fieldnames or ()) != IMAGE_COLUMNS:
                raise ValueError(f"its columns are not {','.join(IMAGE_COLUMNS)}")
            for row in reader:
                judged = _judged(row, f"line {reader.line_num}")
                if found.setdefault(row["map"], {}).setdefault(judged.image, judged) is not judged:
                    raise ValueError(f"line {reader.line_num}: {judged.image!r} is there twice")
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{file} is no file of `evaluate --details`: {error}.") from error
    if not found:
        raise ValueError(f"{file} holds no image.")
    return {name: list(images.values()) for name, images in found.items()}


def _judged(row: Mapping[str, str | None], where: str) -> JudgedImage:
    fields = [field for field in row.values() if field is not None]
    if None in row or len(fields) != len(IMAGE_COLUMNS):
        raise ValueError(f"{where} does not have {len(IMAGE_COLUMNS)} fields")
    _, image, name, predicted, iou, *_ = fields
    try:
        is_localized = None if iou == "" else float(iou) >= V1_DELTA
    except ValueError:
        raise ValueError(f"{where}: iou is {iou!r}, and a number is accepted") from None
    return JudgedImage(image, name, None if predicted == "" else predicted == name, is_localized)


def _csv(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> str:
    table = csv.writer(text := StringIO(newline=""))
    table.writerow(columns)
    table.writerows([inert(value) for value in row] for row in rows)
    return text.getvalue()


def _image_rows(verdicts: Mapping[str, Sequence[Verdict]], classes: Sequence[str]) -> Iterator[Sequence[Any]]:
    for name, judged in verdicts.items():
        for each in judged:
            predicted = None if each.predicted is None else classes[each.predicted]
            of_image = (each.image_id, classes[each.label], predicted)
            yield name, *of_image, each.iou, each.threshold, each.error


def _class_rows(verdicts: Mapping[str, Sequence[Verdict]], classes: Sequence[str]) -> Iterator[Sequence[Any]]:
    for name, judged in verdicts.items():
        by_class: dict[int, list[Verdict]] = {label: [] for label in range(len(classes))}
        for each in judged:
            by_class[each.label].append(each)
        for label, members in by_class.items():
            yield name, classes[label], *_of_class(members)


def _of_class(members: Sequence[Verdict]) -> Sequence[Any]:
    boxed = [each for each in members if each.error is not None]
    is_classified = all(each.predicted is not None for each in members)
    errors = Counter(each.error for each in boxed)
    return (
        len(members),
        len(boxed),
        _percent(boxed, lambda each: each.is_localized),
        _percent(boxed if is_classified else (), lambda each: each.is_localized and each.is_classified),
        _percent(members if is_classified else (), lambda each: each.is_classified),
        *(errors[kind] for kind in ERRORS),
    )


def _percent(members: Sequence[Verdict], holds: Callable[[Verdict], bool]) -> float | None:
    return sum(map(holds, members)) * 100.0 / len(members) if members else None
