"""Data sets of one folder per class, the layout of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iir_fast.app.progress import in_threads
from iir_fast.data.find import TAKEN, files_below, left_out
from iir_fast.data.hold_out import PARTS, hold_out
from iir_fast.data.listing import Listing
from iir_fast.data.records import SPLITS, Fault, OnFault, raise_fault


def has_class_folders(root: Path, split: str) -> bool:
    """Find out whether a root has that split: its folder, or, where no split has folders of its own, a part of all."""
    if _split_folders(root):
        return (root / split).is_dir()
    return split in PARTS and bool(_subfolders(root))


def list_class_folders(
    root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault, *, seed: int = 0
) -> Listing:
    """List the images of ``root/<split>/<class>/``, or of ``root/<class>/``, at any depth, by class and sorted by path.

    Where none of ``root/train``, ``root/val`` and ``root/test`` holds folders, those in the root are the classes, and a
    fifth of each class is held out as "test" (`hold_out`).

    Classes are the sorted names of the training split's folders, or of the split itself where there is none, and so
    have the numbers that torchvision's ImageFolder gives them. An image is known by its suffix, in any case; names that
    begin with a dot are passed over, other files are counted and named.
    """
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
        is_ones_own=True,
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
