"""Data sets by name: what a configuration or a command line calls a source of data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast.data.class_folders import has_class_folders, list_class_folders
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.folder import csv_files, find_csv, list_folder
from iir_fast.data.listing import ListedDataset, Listing
from iir_fast.data.metadata import METADATA, MetadataLayout, list_metadata
from iir_fast.data.pet import PET_SPLITS, fetch_pet, list_pet
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset, ProceduralRecipe, Split
from iir_fast.data.records import SPLITS, Fault, OnFault, raise_fault
from iir_fast.data.shard_index import find_shards
from iir_fast.data.shards import list_shards

PROCEDURAL = "procedural"
"""The name of the embedded data set among sources."""
FOLDER = "folder"


class _Layout(NamedTuple):
    """How image files are laid out below a root."""

    has: Callable[[Path, str], bool]
    """Whether a root has a split; only the folder or the file that would list it is looked for."""
    list: Callable[..., Listing]
    """From root, split, classes and `on_fault` to what is there."""


def _metadata(layout: MetadataLayout) -> _Layout:
    return _Layout(lambda root, split: layout.metadata(root, split).is_dir(), partial(list_metadata, layout))


_LAYOUTS = {
    **{name: _metadata(layout) for name, layout in METADATA.items()},
    "pet": _Layout(lambda root, split: split in PET_SPLITS, list_pet),
    "images": _Layout(has_class_folders, list_class_folders),
    "shards": _Layout(lambda root, split: bool(find_shards(root / split)), list_shards),
    FOLDER: _Layout(lambda root, split: find_csv(root, split) is not None, list_folder),
}
_HELD_OUT = ("images", FOLDER)
"""Kinds that may hold out a part to test on, by a seed."""


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
        FileNotFoundError: there is no such split.
        OSError: a file cannot be read, or Oxford-IIIT Pet not be downloaded.
        ModuleNotFoundError: shards have no index yet, and webdataset is not installed.
        ValueError: `split` is unknown; a file is malformed, a label none of `classes` or a box outside its image, with
            the file and its line; or no image is left.
        BrokenImageError: an image or a mask of a CSV is missing or has no readable header.
    """
    kind, root = parse_source(source)
    if kind == PROCEDURAL:
        return ProceduralDataset(cast(Split, split), images, transform=transform, recipe=recipe)
    if kind == "pet":
        fetch_pet(root, split)
    listing = list_split(source, split, classes, _stop, seed=seed, raw_orientation=raw_orientation)
    dataset = ListedDataset(listing, transform, skip_broken)
    if kind == FOLDER:
        dataset.check()  # a box outside its image is reported before any work is done
    return dataset


def _stop(fault: Fault) -> None:
    # What the protocol's own tools pass over in silence: a shortened image_ids.txt, an image without annotation.
    if fault.kind not in ("unlisted id", "no annotation"):
        raise fault
