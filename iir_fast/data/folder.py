"""Data sets of image files, with a CSV of labels and boxes."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from iir_fast.data.hold_out import PARTS, hold_out
from iir_fast.data.listing import ListedBox, ListedMasks, Listing
from iir_fast.data.records import SPLITS, Fault, OnFault, at, check_path, parse_box, raise_fault

_BOX_COLUMNS = ("x0", "y0", "x1", "y1")
_LIKE_A_BOX = re.compile(r"[xy]_?(min|max|[0-9]|c|center|centre|tl|br)?|w|h|width|height|left|top|right|bottom|.*box.*")
"""Names of columns that others give to boxes; a size alone is none."""
_HOW = (
    "boxes are read from the columns x0,y0,x1,y1: pixels from the upper left corner, x1 and y1 exclusive; rename or "
    "convert them (x1 = x0 + width, y1 = y0 + height)"
)
_SEPARATORS = (",", ";", "\t")


def find_csv(root: Path, split: str) -> tuple[str, str | None] | None:
    """Find the CSV that lists a split: its own, or, where no split has one, the only one that is there; give its name,
    and which part of it is the split, None if all of it."""
    if (root / f"{split}.csv").is_file():
        return f"{split}.csv", None
    names = csv_files(root)
    if split not in PARTS or len(names) != 1 or names[0] in {f"{each}.csv" for each in SPLITS}:
        return None
    return names[0], split


def csv_files(root: Path) -> list[str]:
    """Name the CSVs in a folder."""
    return sorted(
        file.name
        for file in root.iterdir()
        if file.suffix.lower() == ".csv" and file.is_file() and not file.name.startswith(".")
    )


@dataclass
class _Annotation:
    """What the CSV says of one image: its label, the first line that names it, its boxes."""

    label: str
    line: int
    boxes: list[ListedBox] = field(default_factory=list)


def list_folder(
    root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault, *, seed: int = 0
) -> Listing:
    """List what the CSV of a split says, or a part of the only CSV, made by `hold_out`, in the order of its lines.

    The CSV has the header ``path,label,x0,y0,x1,y1``, in any case: paths relative to the root, a class name or number,
    and one box in pixels of the upright image, x1 and y1 exclusive; several lines with one path are several boxes. The
    four box columns may be absent, or empty for an image without a box; further columns are ignored unless they look
    like boxes. It is UTF-8 or UTF-16, separated by commas, semicolons or tabs. A mask, if there is one, is ``masks/``
    and the image's path with the suffix ``.png``, non-zero on the object, or opaque there.

    Classes are by default the sorted labels of the CSV, by value if all of them are numbers. A label that is a number
    is an index, unless classes have numbers for names.
    """
    csv_name, part = find_csv(root, split) or (f"{split}.csv", None)
    file = root / csv_name
    annotations = _read_annotations(file, on_fault)
    classes = _class_names({a.label for a in annotations.values()}) if classes is None else tuple(classes)
    indices = {name: i for i, name in enumerate(classes)}
    if len(indices) < len(classes):
        raise ValueError(f"classes must not name a class twice, got {list(classes)}")
    if not any(name.isdecimal() for name in classes):
        indices |= {str(i): i for i in range(len(classes))}
    for a in annotations.values():
        if a.label not in indices:
            text = f"label {a.label!r} is none of the {len(classes)} classes"
            on_fault(Fault("label", f"{at(file, a.line)}: {text}"))
    annotations = {path: a for path, a in annotations.items() if a.label in indices}
    masks = {path: PurePosixPath("masks", path).with_suffix(".png").as_posix() for path in annotations}
    listing = Listing(
        root=root,
        split=split,
        classes=classes,
        ids=tuple(annotations),
        labels=tuple(indices[a.label] for a in annotations.values()),
        boxes={path: a.boxes for path, a in annotations.items() if a.boxes},
        masks={path: ListedMasks((mask,)) for path, mask in masks.items() if (root / mask).is_file()},
        upright=True,
        is_ones_own=True,
        remarks=() if part is None else (f"{root} is read by {csv_name}.",),
    )
    return listing if part is None else hold_out(listing, part, seed)


def _class_names(labels: set[str]) -> tuple[str, ...]:
    numbers = all(name.isdecimal() for name in labels)
    return tuple(sorted(labels, key=lambda name: (int(name), name) if numbers else (0, name)))


def _read_annotations(file: Path, on_fault: OnFault) -> dict[str, _Annotation]:
    if not file.is_file():
        raise FileNotFoundError(f"csv names {file}, which does not exist or is not a file")
    found: dict[str, _Annotation] = {}
    try:
        text = _decode(file.read_bytes())
        header = text.partition("\n")[0].lower()
        separator = max(_SEPARATORS, key=header.count)
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        columns = ["path", "label", *_box_columns(file, reader.fieldnames)]
        if missing := [column for column in columns if column not in reader.fieldnames]:
            text = f"{file} lacks the column {', '.join(missing)}; its header is {','.join(reader.fieldnames)!r}"
            raise Fault("corrupt line", text)
        for row in reader:
            try:
                _add_row(found, row, columns, file, reader.line_num)
            except Fault as fault:
                on_fault(fault)
    except Fault as fault:
        on_fault(fault)
        return {}
    except (UnicodeError, csv.Error) as error:
        on_fault(Fault("corrupt line", f"{file} is no CSV in UTF-8 or UTF-16, save it as one: {error}"))
    if not found:
        on_fault(Fault("missing line", f"{file} lists no image"))
    return found


def _decode(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with its byte order mark, as spreadsheets write it."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _box_columns(file: Path, header: Sequence[str]) -> Sequence[str]:
    """Name the columns of boxes, if there are any, or raise a fault where others look like them."""
    if not set(_BOX_COLUMNS).issubset(header):
        like = [column for column in header if _LIKE_A_BOX.fullmatch(column)]
        if len(like) >= len(_BOX_COLUMNS) or any("box" in column for column in like):
            raise Fault("corrupt line", f"{file} has columns that look like boxes, {','.join(like)}; {_HOW}")
    return _BOX_COLUMNS if set(_BOX_COLUMNS).intersection(header) else ()


def _add_row(
    found: dict[str, _Annotation], row: dict[str | None, Any], columns: Sequence[str], file: Path, line: int
) -> None:
    where = at(file, line)
    further = row.pop(None, [])
    values = {name: (text or "").strip() for name, text in row.items()}
    if not any(values.values()) and not any(further):
        return  # an empty line of a spreadsheet
    if any(further):
        text = f"a line has {len(row)} fields, as the header, got {len(row) + len(further)}; put quotes around a field"
        raise Fault("corrupt line", f"{where}: {text} that holds the separator")
    path, label, *numbers = (values[column] for column in columns)
    if not path or not label or (any(numbers) and not all(numbers)):
        raise Fault("corrupt line", f"{where}: a field is missing or empty")
    if "\\" in path and not (file.parent / path).exists():
        raise Fault("corrupt line", f"{where}: path must have / between folders, not \\, got {path!r}")
    check_path(path, where)
    path = PurePosixPath(path).as_posix()
    annotation = found.setdefault(path, _Annotation(label, line))
    if annotation.label != label:
        text = f"{path} is labelled {label!r}, but {annotation.label!r} in line {annotation.line}"
        raise Fault("label", f"{where}: {text}")
    if any(numbers):
        annotation.boxes.append(ListedBox(where, parse_box(numbers, where, inclusive=False)))
