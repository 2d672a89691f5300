"""Data sets of image files, with a CSV of labels and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from iir_fast.data.annotations import class_indices, class_names, read_annotations
from iir_fast.data.dataset import Transform
from iir_fast.data.faults import Fault, OnFault, raise_fault
from iir_fast.data.images import read_size
from iir_fast.data.listing import ListedBox, ListedDataset, ListedMasks, Listing
from iir_fast.data.records import at


class FolderDataset(ListedDataset):
    """The images that a CSV lists, below one root folder.

    The CSV has the header ``path,label,x0,y0,x1,y1``: paths relative to the root, a class name or number, and one box
    in pixels, x1 and y1 exclusive; several lines with one path are several boxes. The four box columns may be absent.
    A mask, if there is one, is ``masks/`` and the image's path with the suffix ``.png``, non-zero on the object.
    Pixels are taken as stored: an EXIF orientation is not applied.

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


def list_folder(
    root: Path, csv: str = "train.csv", classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """What a CSV says, with the masks that are there.

    Args:
        root: the folder.
        csv: the CSV's path relative to `root`.
        classes: class names; by default the labels of the CSV.
        on_fault: is handed every fault; where it returns, what is faulty is passed over.

    Raises:
        FileNotFoundError: there is no such CSV.
        ValueError: `classes` names a class twice.
        Fault: unless `on_fault` returns; see `read_annotations`. Or a label is none of `classes`.
    """
    file = root / csv
    annotations = read_annotations(file, on_fault)
    classes = class_names(annotations) if classes is None else tuple(classes)
    indices = class_indices(classes)
    for a in annotations:
        if a.label not in indices:
            text = f"label {a.label!r} is none of the {len(classes)} classes"
            on_fault(Fault("label", f"{at(file, a.line)}: {text}"))
    annotations = [a for a in annotations if a.label in indices]
    masks = {a.path: PurePosixPath("masks", a.path).with_suffix(".png").as_posix() for a in annotations}
    return Listing(
        root=root,
        split=file.stem,
        classes=classes,
        ids=tuple(a.path for a in annotations),
        labels=tuple(indices[a.label] for a in annotations),
        boxes={a.path: [ListedBox(at(file, n), box) for n, box in a.boxes] for a in annotations if a.boxes},
        masks={path: ListedMasks((mask,)) for path, mask in masks.items() if (root / mask).is_file()},
    )
