"""The CSV of an image folder: one line per box, `path,label,x0,y0,x1,y1`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from iir_fast.data.faults import Fault, OnFault, raise_fault
from iir_fast.data.records import at, check_path, parse_box

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


def read_annotations(file: Path, on_fault: OnFault = raise_fault) -> list[Annotation]:
    """Read a CSV with the header `path,label` and, where boxes are known, `x0,y0,x1,y1`.

    Coordinates are pixels, x1 and y1 exclusive. Several lines with one path are several boxes of one image. Further
    columns are ignored.

    Args:
        file: the CSV, UTF-8.
        on_fault: is handed every fault; where it returns, what is faulty is passed over.

    Returns:
        One annotation per path, in the order of first appearance.

    Raises:
        FileNotFoundError: there is no such file.
        Fault: unless `on_fault` returns. A column is missing, the file lists no image or is no UTF-8 text, or, with its
            line number, a line has too few fields, leads out of the data set, contradicts an earlier label or has no
            proper box.
    """
    if not file.is_file():
        raise FileNotFoundError(f"csv names {file}, which does not exist or is not a file")
    found: dict[str, Annotation] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = _required_columns(reader.fieldnames or ())
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                header = ",".join(reader.fieldnames or ())
                on_fault(
                    Fault("corrupt line", f"{file} lacks the column {', '.join(missing)}; its header is {header!r}")
                )
                return []
            for row in reader:
                try:
                    fields = [row[column] for column in columns]
                    _add_row(found, fields, file, reader.line_num)
                except Fault as fault:
                    on_fault(fault)
    except (UnicodeDecodeError, csv.Error) as error:
        on_fault(Fault("corrupt line", f"{file} is not a CSV in UTF-8: {error}"))
    if not found:
        on_fault(Fault("missing line", f"{file} lists no image"))
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


def _required_columns(header: Sequence[str]) -> tuple[str, ...]:
    """The columns to read: path and label, and the box if any column of it is there."""
    return ("path", "label", *(_BOX_COLUMNS if set(header).intersection(_BOX_COLUMNS) else ()))


def _add_row(found: dict[str, Annotation], fields: Sequence[str | None], file: Path, line: int) -> None:
    if not all(fields):
        raise Fault("corrupt line", f"{at(file, line)}: a field is missing or empty")
    path, label, *numbers = (text or "" for text in fields)
    check_path(path, file, line)
    path = PurePosixPath(path).as_posix()
    annotation = found.setdefault(path, Annotation(path, label, line))
    if annotation.label != label:
        text = f"{path} is labelled {label!r}, but {annotation.label!r} in line {annotation.line}"
        raise Fault("label", f"{at(file, line)}: {text}")
    if numbers:
        annotation.boxes.append((line, parse_box(numbers, at(file, line), inclusive=False)))
