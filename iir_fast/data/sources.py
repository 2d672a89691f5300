"""Data sets by name: what a configuration or a command line calls a source of data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast.data.class_folders import ClassFoldersDataset, has_class_folders, list_class_folders
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.folder import FolderDataset, csv_files, find_csv, list_folder
from iir_fast.data.listing import ListedDataset, Listing
from iir_fast.data.metadata import METADATA, MetadataDataset, MetadataLayout, list_metadata
from iir_fast.data.pet import PET_SPLITS, PetDataset, list_pet
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset, ProceduralRecipe, Split
from iir_fast.data.records import SPLITS, OnFault, raise_fault
from iir_fast.data.shard_index import find_shards
from iir_fast.data.shards import ShardsDataset, list_shards

PROCEDURAL = "procedural"
"""The name of the embedded data set among sources."""
FOLDER = "folder"


class _Layout(NamedTuple):
    """How image files are laid out below a root."""

    has: Callable[[Path, str], bool]
    """Whether a root has a split; only the folder or the file that would list it is looked for."""
    list: Callable[..., Listing]
    """From root, split, classes and `on_fault` to what is there."""
    dataset: Callable[..., ListedDataset]
    """From root and split to the images."""


def _metadata(name: str, layout: MetadataLayout) -> _Layout:
    return _Layout(
        lambda root, split: layout.metadata(root, split).is_dir(),
        partial(list_metadata, layout),
        partial(MetadataDataset, name),
    )


def _csv(root: Path, split: str) -> tuple[str, str | None]:
    """Name the CSV of a split that is in a folder, or would be, and the part of it."""
    return find_csv(root, split) or (f"{split}.csv", None)


def _list_csv(root: Path, split: str, *rest: Any, seed: int = 0) -> Listing:
    name, part = _csv(root, split)
    return list_folder(root, name, *rest, split=part, seed=seed)


def _open_csv(root: Path, split: str, **options: Any) -> FolderDataset:
    name, part = _csv(root, split)
    return FolderDataset(root, name, split=part, **options)


_LAYOUTS = {
    **{name: _metadata(name, layout) for name, layout in METADATA.items()},
    "pet": _Layout(lambda root, split: split in PET_SPLITS, list_pet, PetDataset),
    "images": _Layout(has_class_folders, list_class_folders, ClassFoldersDataset),
    "shards": _Layout(lambda root, split: bool(find_shards(root / split)), list_shards, ShardsDataset),
    FOLDER: _Layout(lambda root, split: find_csv(root, split) is not None, _list_csv, _open_csv),
}
_HELD_OUT = ("images", FOLDER)
"""Kinds that may hold out a part to test on, by a seed."""
_UPRIGHT = (*_HELD_OUT, "shards")
"""Kinds that are one's own: their images are read upright, unless told otherwise."""


def parse_source(source: str) -> tuple[str, Path]:
    """Tell the kind of a source, "procedural", "folder", or what stands before a colon, e.g. "cub", and its root, where
    "~" is the home folder. Of a folder alone, what it holds tells.

    Raises:
        FileNotFoundError: the folder is not there, or holds neither a CSV nor folders.
        ValueError: the folder holds what another kind reads.
    """
    kind, root = _split(source)
    if kind != FOLDER:
        return kind, root
    others = [name for name in _LAYOUTS if name not in ("pet", *_HELD_OUT)]
    if not root.is_dir():
        accepted = f"a folder of one's own images, or one of {', '.join(f'{name}:ROOT' for name in _LAYOUTS)}"
        raise FileNotFoundError(f"data names {source}, which is no folder; accepted are {PROCEDURAL}, {accepted}")
    for name in others:
        if any(_LAYOUTS[name].has(root, split) for split in SPLITS):
            raise ValueError(f"data names {source}, a folder that {name}:{source} reads; write that")
    if csv_files(root):
        return FOLDER, root
    if any(has_class_folders(root, split) for split in SPLITS):
        return "images", root
    accepted = "train.csv, another single CSV, or one folder of images for each class is accepted there"
    raise FileNotFoundError(f"data names {source}, which holds no images that have labels; {accepted}")


def absolute_source(source: str) -> str:
    """Name a source by an absolute path, so that it is the same from any folder."""
    kind, root = _split(source)
    if kind == PROCEDURAL:
        return source
    place = os.path.abspath(root)
    return place if kind == FOLDER else f"{kind}:{place}"


def _split(source: str) -> tuple[str, Path]:
    kind, _, root = source.partition(":")
    if root and kind in _LAYOUTS and kind != FOLDER:
        return kind, Path(root).expanduser()
    return (PROCEDURAL, Path()) if source == PROCEDURAL else (FOLDER, Path(source).expanduser())


def has_split(source: str, split: str) -> bool:
    """Find out whether `open_split` would find that split of a source; only what would list it is looked for."""
    kind, root = parse_source(source)
    return split in SPLIT_SIZES if kind == PROCEDURAL else _LAYOUTS[kind].has(root, split)


def training_classes(source: str, split: str, *, raw_orientation: bool = False) -> tuple[str, ...] | None:
    """Name the classes of a source's training split, which its other splits are to be given.

    Args:
        source, raw_orientation: as `open_split` takes them.
        split: the one that they are for.

    Returns:
        The names in the order of their indices; None: `split` is the training split, or there is none.
    """
    if split == "train" or not has_split(source, "train"):
        return None
    return open_split(source, "train", pil_to_tensor, raw_orientation=raw_orientation).classes


def list_split(
    source: str,
    split: str,
    classes: Sequence[str] | None = None,
    on_fault: OnFault = raise_fault,
    *,
    seed: int = 0,
    raw_orientation: bool = False,
) -> Listing:
    """List what the files of one split say, of any source but "procedural"."""
    kind, root = parse_source(source)
    options = {"seed": seed} if kind in _HELD_OUT else {}
    listing = _LAYOUTS[kind].list(root, split, classes, on_fault, **options)
    return replace(listing, upright=False) if raw_orientation else listing


def open_split(
    source: str,
    split: str,
    transform: Transform,
    *,
    classes: Sequence[str] | None = None,
    skip_broken: bool = False,
    images: int | None = None,
    recipe: ProceduralRecipe | None = None,
    seed: int = 0,
    raw_orientation: bool = False,
) -> LocalizationDataset:
    """Open one split of a data set.

    Args:
        source: "procedural"; a folder with ``<split>.csv`` or another single CSV, or as "images:ROOT"; "cub:ROOT",
            "ilsvrc:ROOT" or "openimages:ROOT" with the images and `metadata/` below ROOT, or "ilsvrc-proxy:ROOT" and so
            on with the proxy of the training split, which the protocol searches hyper-parameters on; "pet:ROOT" for
            Oxford-IIIT Pet, which downloads itself; "images:ROOT" with images below ROOT/<split>/<class> or
            ROOT/<class>; "shards:ROOT" with tar shards in ROOT/<split>.
        split: "train" or "test"; of a folder, images or shards, any that is there; of CUB, ILSVRC and OpenImages "val"
            too.
        transform: makes the tensor of an RGB image.
        classes: class names of the training split, for the other splits of anything but "procedural".
        skip_broken: decode every image and its masks once, and leave out images where that fails.
        images: size of the embedded split, if another than its own.
        recipe: how hard the embedded data are, if not as usual.
        seed: of the images that are held out to test on, where one's own come without splits.
        raw_orientation: read one's own images as they are stored, where their boxes are in the pixels of these.

    Returns:
        The split; `dataset[i]` is a transformed image and its label.

    Raises:
        ValueError, OSError: as `ProceduralDataset`, `FolderDataset`, `MetadataDataset`, `PetDataset`,
            `ClassFoldersDataset` and `ShardsDataset`.
    """
    kind, root = parse_source(source)
    if kind == PROCEDURAL:
        return ProceduralDataset(cast(Split, split), images, transform=transform, recipe=recipe)
    options: dict[str, Any] = {"seed": seed} if kind in _HELD_OUT else {}
    options |= {"raw_orientation": raw_orientation} if kind in _UPRIGHT else {}
    return _LAYOUTS[kind].dataset(root, split, transform=transform, classes=classes, skip_broken=skip_broken, **options)
