"""Data sets of one folder per class, the layout of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iir_fast.app.progress import in_threads
from iir_fast.data.dataset import Transform
from iir_fast.data.find import TAKEN, image_paths
from iir_fast.data.listing import ListedDataset, Listing
from iir_fast.data.records import Fault, OnFault, raise_fault


class ClassFoldersDataset(ListedDataset):
    """The images of ``root/<split>/<class>/``, at any depth; no boxes, no masks.

    Classes are the sorted names of the training split's folders, and so have the numbers that torchvision's ImageFolder
    gives them. An image is known by its suffix, in any case; names that begin with a dot are passed over. Construction
    lists the folders and opens no image.

    Args:
        root: see above.
        split: "train", "test" or any other folder below `root`.
        transform: makes the tensor of an RGB image.
        classes: class names in the order of their indices; by default the folders of ``root/train``, or of the split
            itself where there is none.
        skip_broken: decode every image once and leave out images where that fails.

    Raises:
        FileNotFoundError: there is no such split.
        ValueError: a folder of the split holds no image or is none of `classes`, or no image is left.
        OSError: a folder cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        transform: Transform,
        classes: Sequence[str] | None = None,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(list_class_folders(Path(root), split, classes), transform, skip_broken)


def list_class_folders(
    root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """List the images of one split by class, each class's sorted by path."""
    found = _folder_names(root / split)
    if classes is None:
        classes = _folder_names(root / "train") if (root / "train").is_dir() else found
    indices = {name: i for i, name in enumerate(classes)}
    for name in found:
        if name not in indices:
            text = f"{root / split / name} is none of the {len(classes)} classes of the training split"
            on_fault(Fault("label", text))
    found = [name for name in found if name in indices]
    listed = in_threads(image_paths, [root / split / name for name in found], "Listing images")
    paths = dict(zip(found, listed, strict=True))
    for name, each in paths.items():
        if not each:
            on_fault(Fault("missing image", f"{root / split / name} holds no image; {TAKEN}"))
    labelled = [(f"{split}/{name}/{path}", indices[name]) for name, each in paths.items() for path in each]
    return Listing(
        root=root,
        split=split,
        classes=tuple(classes),
        ids=tuple(path for path, _ in labelled),
        labels=tuple(label for _, label in labelled),
    )


def _folder_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist or is not a folder")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise FileNotFoundError(f"{folder} holds no folder; one per class is needed")
    return names
