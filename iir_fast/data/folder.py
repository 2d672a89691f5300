"""Data sets of image files, with a CSV of labels and boxes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from iir_fast.data.dataset import Transform
from iir_fast.data.images import read_size
from iir_fast.data.listing import ListedBox, ListedDataset, ListedMasks, Listing
from iir_fast.data.records import Fault, OnFault, at, check_path, parse_box, raise_fault

_BOX_COLUMNS = ("x0", "y0", "x1", "y1")


class FolderDataset(ListedDataset):
    """The images that a CSV lists, below one root folder.

    The CSV, in UTF-8, has the header ``path,label,x0,y0,x1,y1``: paths relative to the root, a class name or number,
    and one box in pixels, x1 and y1 exclusive; several lines with one path are several boxes. The four box columns may
    be absent, further ones are ignored. A mask, if there is one, is ``masks/`` and the image's path with the suffix
    ``.png``, non-zero on the object. Pixels are taken as stored: an EXIF orientation is not applied.

    The headers of all images that have boxes are read at construction, so that a box outside its image is reported
    before any work is done.

    Args:
        root: the folder.
        csv: the CSV's path relative to `root`; its stem becomes the name of the split.
        transform: makes the tensor of an RGB image.
        classes: class names in the order of their indices; a test set must be given its training set's. By default
            the sorted labels of the CSV (by value if all of them are numbers). A label that is a number is an index,
            unless classes have numbers for names.
        skip_broken: decode every image and mask once at construction and leave out images where that fails.

    Raises:
        FileNotFoundError: there is no such CSV.
        ValueError: the CSV is malformed, a label is none of `classes`, a box is empty or outside its image; the
            message has the line number. Or no image is left.
        BrokenImageError: an image file is missing, or has boxes and no readable header.
    """

    def __init__(
        self,
        root: str | Path,
        csv: str = "train.csv",
        *,
        transform: Transform,
        classes: Sequence[str] | None = None,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(list_folder(Path(root), csv, classes), transform, skip_broken)
        for path in filter(self.listing.boxes.get, self.ids):
            self.listing.check_boxes(path, read_size(self.listing.root, path), raise_fault)
        _ = self.fingerprint  # names a missing image now


@dataclass
class _Annotation:
    """What the CSV says of one image: its label, the first line that names it, its boxes."""

    label: str
    line: int
    boxes: list[ListedBox] = field(default_factory=list)


def list_folder(
    root: Path, csv: str = "train.csv", classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """List what a CSV says, in the order of its lines, with the masks that are there."""
    file = root / csv
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
    return Listing(
        root=root,
        split=file.stem,
        classes=classes,
        ids=tuple(annotations),
        labels=tuple(indices[a.label] for a in annotations.values()),
        boxes={path: a.boxes for path, a in annotations.items() if a.boxes},
        masks={path: ListedMasks((mask,)) for path, mask in masks.items() if (root / mask).is_file()},
    )


def _class_names(labels: set[str]) -> tuple[str, ...]:
    numbers = all(name.isdecimal() for name in labels)
    return tuple(sorted(labels, key=lambda name: (int(name), name) if numbers else (0, name)))


def _read_annotations(file: Path, on_fault: OnFault) -> dict[str, _Annotation]:
    if not file.is_file():
        raise FileNotFoundError(f"csv names {file}, which does not exist or is not a file")
    found: dict[str, _Annotation] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or ()
            columns = ("path", "label", *(_BOX_COLUMNS if set(header).intersection(_BOX_COLUMNS) else ()))
            if missing := [column for column in columns if column not in header]:
                text = f"{file} lacks the column {', '.join(missing)}; its header is {','.join(header)!r}"
                on_fault(Fault("corrupt line", text))
                return {}
            for row in reader:
                try:
                    _add_row(found, [row[column] for column in columns], file, reader.line_num)
                except Fault as fault:
                    on_fault(fault)
    except (UnicodeDecodeError, csv.Error) as error:
        on_fault(Fault("corrupt line", f"{file} is not a CSV in UTF-8: {error}"))
    if not found:
        on_fault(Fault("missing line", f"{file} lists no image"))
    return found


def _add_row(found: dict[str, _Annotation], fields: Sequence[str | None], file: Path, line: int) -> None:
    where = at(file, line)
    if not all(fields):
        raise Fault("corrupt line", f"{where}: a field is missing or empty")
    path, label, *numbers = (text or "" for text in fields)
    check_path(path, where)
    path = PurePosixPath(path).as_posix()
    annotation = found.setdefault(path, _Annotation(label, line))
    if annotation.label != label:
        text = f"{path} is labelled {label!r}, but {annotation.label!r} in line {annotation.line}"
        raise Fault("label", f"{where}: {text}")
    if numbers:
        annotation.boxes.append(ListedBox(where, parse_box(numbers, where, inclusive=False)))
