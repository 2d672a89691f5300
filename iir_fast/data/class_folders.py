"""Data sets of one folder per class, the layout of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iir_fast.app.progress import in_threads
from iir_fast.data.dataset import Transform
from iir_fast.data.find import TAKEN, files_below, left_out
from iir_fast.data.hold_out import PARTS, hold_out
from iir_fast.data.listing import ListedDataset, Listing
from iir_fast.data.records import SPLITS, Fault, OnFault, raise_fault


class ClassFoldersDataset(ListedDataset):
    """The images of ``root/<split>/<class>/``, or of ``root/<class>/``, at any depth; no boxes, no masks.

    Where none of ``root/train``, ``root/val`` and ``root/test`` holds folders, those in the root are the classes, and a
    fifth of each class is held out as "test" (`hold_out`).

    Classes are the sorted names of the training split's folders, and so have the numbers that torchvision's ImageFolder
    gives them. An image is known by its suffix, in any case; names that begin with a dot are passed over, other files
    are counted and named. Images are read upright. Construction lists the folders and opens no image.

    Args:
        root, split: see above; a split is any folder below `root`, and without splits "train" or "test".
        classes: class names in the order of their indices; by default the folders of ``root/train``, or of the split
            itself where there is none.
        transform, skip_broken, raw_orientation, seed: as `open_split` takes them.

    Raises:
        FileNotFoundError: there is no such split.
        ValueError: a folder of the split holds no image or is none of `classes`, or no image is left.
        OSError: a folder cannot be read.
    """

    is_ones_own = True

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        transform: Transform,
        classes: Sequence[str] | None = None,
        skip_broken: bool = False,
        raw_orientation: bool = False,
        seed: int = 0,
    ) -> None:
        listing = list_class_folders(Path(root), split, classes, seed=seed)
        super().__init__(listing, transform, skip_broken, raw_orientation)


def has_class_folders(root: Path, split: str) -> bool:
    """Find out whether a root has that split: its folder, or, where no split has folders of its own, a part of all."""
    if _split_folders(root):
        return (root / split).is_dir()
    return split in PARTS and bool(_subfolders(root))


def list_class_folders(
    root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault, *, seed: int = 0
) -> Listing:
    """List the images of one split by class, each class's sorted by path."""
    splits = _split_folders(root)
    if not splits:
        return hold_out(_list(root, "", split, classes, on_fault), split, seed)
    if classes is None and (root / "train").is_dir():
        classes = _folder_names(root / "train")
    listing = _list(root, split, split, classes, on_fault)
    found = f"{root} is read as class folders by split: {', '.join(splits)}."
    return replace(listing, remarks=(found, *listing.remarks))


def _list(root: Path, folder: str, split: str, classes: Sequence[str] | None, on_fault: OnFault) -> Listing:
    """List the class folders in a folder below the root."""
    here = root / folder
    found = _folder_names(here)
    classes = found if classes is None else classes
    indices = {name: i for i, name in enumerate(classes)}
    for name in found:
        if name not in indices:
            text = f"{here / name} is none of the {len(classes)} classes of the training split"
            on_fault(Fault("label", text))
    found = [name for name in found if name in indices]
    files = dict(zip(found, in_threads(files_below, [here / name for name in found], "Listing images"), strict=True))
    for name, each in files.items():
        if not each.images:
            on_fault(Fault("missing image", f"{here / name} holds no image; {TAKEN}"))
    others = sorted(entry.name for entry in here.iterdir() if entry.is_file() and not entry.name.startswith("."))
    others += [f"{name}/{path}" for name, each in files.items() for path in each.others]
    prefix = f"{folder}/" if folder else ""
    labelled = [(f"{prefix}{name}/{path}", indices[name]) for name, each in files.items() for path in each.images]
    return Listing(
        root=root,
        split=split,
        classes=tuple(classes),
        ids=tuple(path for path, _ in labelled),
        labels=tuple(label for _, label in labelled),
        upright=True,
        remarks=(left_out(here, others),) if others else (),
    )


def _split_folders(root: Path) -> list[str]:
    """Name the splits that have folders of classes."""
    return [split for split in SPLITS if _subfolders(root / split)]


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _folder_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist or is not a folder")
    names = _subfolders(folder)
    if not names:
        raise FileNotFoundError(f"{folder} holds no folder; one per class is needed")
    return names
