"""The metadata files of the field's data sets, as "Evaluating Weakly Supervised Object Localization Methods Right"
(Choe et al., CVPR 2020) lays them out.

Below one root stand the images, e.g. in `CUB/`, and for each split a folder, e.g. `metadata/CUB/test/`, of text files
without header, one record a line, fields separated by commas. All paths are relative to the folder of the images.

- `image_ids.txt`: path.
- `class_labels.txt`: path, label. Labels follow the sorted names of the classes' folders in the training split.
- `image_sizes.txt`: path, width, height. May be absent; Open Images has none.
- `localization.txt`: path, x0, y0, x1, y1, one line per box, or path, mask, ignore, one line per instance, where only
  an image's first line may name an ignore region. May be absent, as ILSVRC's training split has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from iir_fast.data.faults import Fault, OnFault, raise_fault
from iir_fast.data.listing import ListedBox, ListedMasks, Listing, Size
from iir_fast.data.records import at, check_path, name_classes, parse_box, parse_whole, read_records


@dataclass(frozen=True)
class MetadataLayout:
    """Where a data set's files are, and what it officially holds.

    Attributes:
        title: its name.
        folder: name of the folder of its images, and of its metadata.
        annotation: what its localization.txt states.
        images: number of images by split (from the protocol's paper and files).
        boxes: number of boxes by split, as far as it is published.
    """

    title: str
    folder: str
    annotation: Literal["boxes", "masks"]
    images: Mapping[str, int]
    boxes: Mapping[str, int]

    def metadata(self, root: Path, split: str) -> Path:
        """The folder of a split's metadata files."""
        return root / "metadata" / self.folder / split


METADATA = {
    "cub": MetadataLayout(
        "CUB-200-2011",
        "CUB",
        "boxes",
        {"train": 5994, "val": 1000, "test": 5794},
        {"train": 5994, "val": 1000, "test": 5794},
    ),
    "ilsvrc": MetadataLayout(
        "ILSVRC", "ILSVRC", "boxes", {"train": 1_281_167, "val": 10_000, "test": 50_000}, {"test": 80_477}
    ),
    "openimages": MetadataLayout(
        "OpenImages30k", "OpenImages", "masks", {"train": 29_819, "val": 2_500, "test": 5_000}, {}
    ),
}

_Lines: TypeAlias = dict[str, int]  # number of the line by path


def list_metadata(
    layout: MetadataLayout,
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    on_fault: OnFault = raise_fault,
) -> Listing:
    """What the metadata files of one split say; no image is opened or looked for.

    Args:
        layout: which data set.
        root: holds the images' folder and `metadata/`.
        split: "train", "val" or "test".
        classes: class names; by default the names of the training images' folders, or the labels themselves where
            there is no metadata of the training split.
        on_fault: is handed every fault; where it returns, what is faulty is passed over.

    Raises:
        FileNotFoundError: image_ids.txt or class_labels.txt is missing.
        Fault: unless `on_fault` returns. A line is malformed, an image is listed twice or has no line in one of the
            files, a label is out of range or belies the image's folder, a box leaves its image.
    """
    if classes is None and split != "train" and (layout.metadata(root, "train") / "class_labels.txt").is_file():
        classes = list_metadata(layout, root, "train", on_fault=on_fault).classes
    folder = layout.metadata(root, split)
    ids = _read_ids(folder / "image_ids.txt", on_fault)
    labels = _read_labels(folder / "class_labels.txt", ids, classes, on_fault)
    if classes is None and split == "train":
        classes = _folder_names(folder / "class_labels.txt", labels, on_fault)
    elif classes is None:
        classes = [str(label) for label in range(max(labels.values(), default=-1) + 1)]
    localization = folder / "localization.txt"
    listing = Listing(
        root=root / layout.folder,
        split=split,
        classes=tuple(classes),
        ids=tuple(path for path in ids if path in labels),
        labels=tuple(labels[path] for path in ids if path in labels),
        sizes=_read_sizes(folder / "image_sizes.txt", ids, on_fault),
        boxes=_read_boxes(localization, ids, on_fault) if layout.annotation == "boxes" else {},
        masks=_read_masks(localization, ids, on_fault) if layout.annotation == "masks" else {},
        masks_are="scaled",
    )
    for path in filter(listing.sizes.get, listing.boxes):
        listing.check_boxes(path, listing.sizes[path], on_fault)
    return listing


def _listed(file: Path, form: str, ids: _Lines, on_fault: OnFault) -> Iterator[tuple[int, list[str]]]:
    """The records of images that image_ids.txt lists."""
    for number, fields in read_records(file, form, ",", on_fault):
        if fields[0] in ids:
            yield number, fields
        else:
            on_fault(Fault("unlisted id", f"{at(file, number)}: {fields[0]} is not in image_ids.txt"))


def _one_each(file: Path, form: str, ids: _Lines, on_fault: OnFault) -> Iterator[tuple[int, list[str]]]:
    """The records of a file that must have one line for each image."""
    lines: _Lines = {}
    for number, fields in _listed(file, form, ids, on_fault):
        if fields[0] in lines:
            on_fault(_duplicate(file, number, fields[0], lines))
        else:
            lines[fields[0]] = number
            yield number, fields
    for path in ids if len(lines) < len(ids) else ():
        if path not in lines:
            on_fault(Fault("missing line", f"{file} has no line for {path}, which image_ids.txt lists"))


def _read_ids(file: Path, on_fault: OnFault) -> _Lines:
    ids: _Lines = {}
    for number, (path,) in read_records(file, "path", ",", on_fault):
        try:
            check_path(path, file, number)
            if path in ids:
                raise _duplicate(file, number, path, ids)
            ids[path] = number
        except Fault as fault:
            on_fault(fault)
    if not ids:
        on_fault(Fault("missing line", f"{file} lists no image"))
    return ids


def _read_labels(file: Path, ids: _Lines, classes: Sequence[str] | None, on_fault: OnFault) -> dict[str, int]:
    labels: dict[str, int] = {}
    indices = {name: i for i, name in enumerate(classes or ())}
    for number, (path, text) in _one_each(file, "path,label", ids, on_fault):
        try:
            label = parse_whole(text, "label", at(file, number))
            if classes is not None and label >= len(classes):
                raise Fault("label", f"{at(file, number)}: label must be below {len(classes)}, got {label}")
            if indices and indices.get(_folder(path), label) != label:
                right = indices[_folder(path)]
                raise Fault("label", f"{at(file, number)}: {path} lies in the folder of label {right}, got {label}")
            labels[path] = label
        except Fault as fault:
            on_fault(fault)
    return labels


def _folder_names(file: Path, labels: Mapping[str, int], on_fault: OnFault) -> tuple[str, ...]:
    """The class names of the training split: its folders."""
    names = name_classes(((label, _folder(path)) for path, label in labels.items()), str(file), on_fault)
    for label, (name, right) in enumerate(zip(names, sorted(names), strict=True)):
        if name != right:
            text = f"labels must follow the sorted names of the folders; label {label} is {name!r}, not {right!r}"
            on_fault(Fault("label", f"{file}: {text}"))
            break
    return names


def _read_sizes(file: Path, ids: _Lines, on_fault: OnFault) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    if file.is_file():
        for number, (path, width, height) in _one_each(file, "path,width,height", ids, on_fault):
            try:
                sizes[path] = (
                    parse_whole(width, "width", at(file, number), 1),
                    parse_whole(height, "height", at(file, number), 1),
                )
            except Fault as fault:
                on_fault(fault)
    return sizes


def _read_boxes(file: Path, ids: _Lines, on_fault: OnFault) -> dict[str, list[ListedBox]]:
    boxes: dict[str, list[ListedBox]] = {}
    if file.is_file():
        for number, (path, *edges) in _listed(file, "path,x0,y0,x1,y1", ids, on_fault):
            found = boxes.setdefault(path, [])
            try:
                found.append(ListedBox(at(file, number), parse_box(edges, at(file, number), inclusive=True)))
            except Fault as fault:
                on_fault(fault)
        _check_annotated(file, ids, boxes, on_fault)
    return boxes


def _read_masks(file: Path, ids: _Lines, on_fault: OnFault) -> dict[str, ListedMasks]:
    masks: dict[str, ListedMasks] = {}
    if file.is_file():
        for number, (path, mask, ignore) in _listed(file, "path,mask,ignore", ids, on_fault):
            before = masks.setdefault(path, ListedMasks())
            try:
                for each in (mask, ignore) if ignore else (mask,):
                    check_path(each, file, number)
                if ignore and before.masks:
                    text = f"only an image's first line may name an ignore region, got {ignore!r} for {path}"
                    raise Fault("corrupt line", f"{at(file, number)}: {text}")
                masks[path] = ListedMasks((*before.masks, mask), before.ignore or ignore)
            except Fault as fault:
                on_fault(fault)
        _check_annotated(file, ids, masks, on_fault)
    return masks


def _check_annotated(file: Path, ids: _Lines, annotated: Mapping[str, object], on_fault: OnFault) -> None:
    for path in ids if len(annotated) < len(ids) else ():
        if path not in annotated:
            on_fault(Fault("no annotation", f"{file} has no line for {path}, which image_ids.txt lists"))


def _duplicate(file: Path, number: int, path: str, lines: _Lines) -> Fault:
    return Fault("duplicate id", f"{at(file, number)}: {path} stands in line {lines[path]} already")


def _folder(path: str) -> str:
    """Name of the folder an image lies in."""
    return path.rpartition("/")[0].rpartition("/")[2]
