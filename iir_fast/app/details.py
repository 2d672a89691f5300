"""What becomes of every image and of every class, as CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from iir_fast.app.files import write_whole
from iir_fast.evaluation import ERRORS, Verdict
from iir_fast.localization.writing import inert

IMAGES, CLASSES = "images.csv", "classes.csv"
IMAGE_COLUMNS = ("map", "image", "class", "predicted", "iou", "threshold", "error")
CLASS_COLUMNS = (
    *("map", "class", "images", "with_boxes", "gt_known_loc", "top1_loc", "top1_accuracy"),
    *(f"error: {kind}" for kind in ERRORS),
)


def write_details(folder: Path, verdicts: Mapping[str, Sequence[Verdict]], classes: Sequence[str]) -> None:
    """Write `images.csv`, a line for each image under each map, and `classes.csv`, a line for each class.

    Numbers have every digit, and shares are in percent. What the data does not allow is empty. An apostrophe goes
    before a text that a spreadsheet would run.

    Args:
        folder: one that is there.
        verdicts: name of the map -> what became of the images.
        classes: names of the classes.

    Raises:
        OSError: a file could not be written; what was there before still is.
    """
    write_whole(folder / IMAGES, _csv(IMAGE_COLUMNS, _image_rows(verdicts, classes)))
    write_whole(folder / CLASSES, _csv(CLASS_COLUMNS, _class_rows(verdicts, classes)))


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
