"""The CSV of an image folder: one line per box, `path,label,x0,y0,x1,y1`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

_BOX_COLUMNS = ("x0", "y0", "x1", "y1")


@dataclass
class Annotation:
    """What the CSV says of one image.

    Attributes:
        path: of the image, relative to the root of the data set, with forward slashes.
        label: as written: the name of a class or its number.
        line: number of the first line that names the image.
        boxes: (line number, (x0, y0, x1, y1)) of every box, in the order of the lines.
    """

    path: str
    label: str
    line: int
    boxes: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)

    def box_array(self) -> NDArray[np.float64]:
        """The boxes alone, [n, 4]."""
        return np.array([box for _, box in self.boxes], np.float64).reshape(-1, 4)


def read_annotations(file: Path) -> list[Annotation]:
    """Read a CSV with the header `path,label` and, where boxes are known, `x0,y0,x1,y1`.

    Coordinates are pixels, x1 and y1 exclusive. Several lines with one path are several boxes of one image. Further
    columns are ignored.

    Args:
        file: the CSV, UTF-8.

    Returns:
        One annotation per path, in the order of first appearance.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, the file lists no image or is no UTF-8 text, or, with its line number, a line
            has too few fields, leads out of the data set, contradicts an earlier label or has no proper box.
    """
    if not file.is_file():
        raise FileNotFoundError(f"csv names {file}, which does not exist or is not a file")
    found: dict[str, Annotation] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = _required_columns(file, reader.fieldnames or ())
            for row in reader:
                _add_row(found, [row[column] for column in columns], f"{file}, line {reader.line_num}", reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a CSV in UTF-8: {error}") from error
    if not found:
        raise ValueError(f"{file} lists no image")
    return list(found.values())


def class_names(annotations: Sequence[Annotation]) -> tuple[str, ...]:
    """The labels that occur, sorted; by value if every one of them is a number."""
    names = {annotation.label for annotation in annotations}
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))


def class_indices(classes: Sequence[str]) -> dict[str, int]:
    """What each label may be called in a CSV.

    A label is the name of its class. Where no class has a number for its name, its index will do as well.

    Raises:
        ValueError: a class is named twice.
    """
    indices = {name: i for i, name in enumerate(classes)}
    if len(indices) < len(classes):
        raise ValueError(f"classes must not name a class twice, got {list(classes)}")
    if not any(name.isdecimal() for name in classes):
        indices |= {str(i): i for i in range(len(classes))}
    return indices


def _required_columns(file: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The columns to read: path and label, and the box if any column of it is there."""
    columns: tuple[str, ...] = ("path", "label")
    if set(header).intersection(_BOX_COLUMNS):
        columns += _BOX_COLUMNS
    if missing := [column for column in columns if column not in header]:
        raise ValueError(f"{file} lacks the column {', '.join(missing)}; its header is {','.join(header)!r}")
    return columns


def _add_row(found: dict[str, Annotation], fields: Sequence[str | None], where: str, line: int) -> None:
    if not all(fields):
        raise ValueError(f"{where}: a field is missing or empty")
    path, label, *numbers = (text or "" for text in fields)
    image = PurePosixPath(path)
    if image.is_absolute() or ".." in image.parts:
        raise ValueError(f"{where}: path must be relative to the root and stay below it, got {path!r}")
    annotation = found.setdefault(image.as_posix(), Annotation(image.as_posix(), label, line))
    if annotation.label != label:
        raise ValueError(f"{where}: {path} is labelled {label!r}, but {annotation.label!r} in line {annotation.line}")
    if numbers:
        annotation.boxes.append((line, _parse_box(numbers, where)))


def _parse_box(numbers: Sequence[str], where: str) -> tuple[float, ...]:
    try:
        x0, y0, x1, y1 = (float(number) for number in numbers)
    except ValueError:
        raise ValueError(f"{where}: x0,y0,x1,y1 must be numbers, got {','.join(numbers)!r}") from None
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise ValueError(f"{where}: 0 <= x0 < x1 and 0 <= y0 < y1 must hold, got {','.join(numbers)!r}")
    return x0, y0, x1, y1
