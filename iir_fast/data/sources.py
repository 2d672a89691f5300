"""Data sets by name: what a configuration or a command line calls a source of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from iir_fast.data.class_folders import ClassFoldersDataset, list_class_folders
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.faults import OnFault, raise_fault
from iir_fast.data.folder import FolderDataset, list_folder
from iir_fast.data.listing import Listing
from iir_fast.data.metadata import MetadataDataset
from iir_fast.data.metadata_files import METADATA, list_metadata
from iir_fast.data.pet import PET_SPLITS, PetDataset, list_pet
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset, ProceduralRecipe, Split
from iir_fast.data.shard_index import find_shards
from iir_fast.data.shards import ShardsDataset, list_shards

PROCEDURAL = "procedural"
"""The name of the embedded data set among sources."""
PET = "pet"
IMAGES = "images"
SHARDS = "shards"
FOLDER = "folder"


def parse_source(source: str) -> tuple[str, Path]:
    """What a source is, "procedural", "cub", "ilsvrc", "openimages", "pet", "images", "shards" or "folder", and
    its root."""
    kind, _, root = source.partition(":")
    if root and (kind in METADATA or kind in (PET, IMAGES, SHARDS)):
        return kind, Path(root)
    return (PROCEDURAL, Path()) if source == PROCEDURAL else (FOLDER, Path(source))


def has_split(source: str, split: str) -> bool:
    """Whether a data set has that split; only the folder or the file that would list it is looked for.

    Args:
        source: as `open_split` takes it.
        split: name of the split.

    Returns:
        True if `open_split` would find it.
    """
    kind, root = parse_source(source)
    if kind == PROCEDURAL:
        return split in SPLIT_SIZES
    if kind == PET:
        return split in PET_SPLITS
    if kind in METADATA:
        return METADATA[kind].metadata(root, split).is_dir()
    if kind == IMAGES:
        return (root / split).is_dir()
    if kind == SHARDS:
        return bool(find_shards(root / split))
    return (root / f"{split}.csv").is_file()


def list_split(
    source: str, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """What the files of one split say, of any source but "procedural".

    Args:
        source: as `open_split` takes it.
        split: one that is there.
        classes: class names of the training split.
        on_fault: is handed every fault; where it returns, what is faulty is passed over.

    Raises:
        FileNotFoundError: a file of the split is missing.
        Fault: unless `on_fault` returns.
    """
    kind, root = parse_source(source)
    if kind == PET:
        return list_pet(root, split, classes, on_fault)
    if kind in METADATA:
        return list_metadata(METADATA[kind], root, split, classes, on_fault)
    if kind == IMAGES:
        return list_class_folders(root, split, classes, on_fault)
    if kind == SHARDS:
        return list_shards(root, split, classes, on_fault)
    return list_folder(root, f"{split}.csv", classes, on_fault)


def open_split(
    source: str,
    split: str,
    transform: Transform,
    *,
    classes: Sequence[str] | None = None,
    skip_broken: bool = False,
    images: int | None = None,
    recipe: ProceduralRecipe | None = None,
) -> LocalizationDataset:
    """One split of a data set.

    Args:
        source: "procedural"; a folder that holds `<split>.csv`; "cub:ROOT", "ilsvrc:ROOT" or "openimages:ROOT" with the
            images and `metadata/` below ROOT; "pet:ROOT" for Oxford-IIIT Pet, which downloads itself; "images:ROOT"
            with images below ROOT/<split>/<class>; "shards:ROOT" with tar shards in ROOT/<split>.
        split: "train" or "test"; of a folder, images or shards, any that is there; of CUB, ILSVRC and OpenImages "val"
            too.
        transform: makes the tensor of an RGB image.
        classes: class names of the training split, for the other splits of anything but "procedural".
        skip_broken: leave out image files that cannot be read.
        images: size of the embedded split, if another than its own.
        recipe: how hard the embedded data are, if not as usual.

    Returns:
        The split; `dataset[i]` is a transformed image and its label.

    Raises:
        ValueError, OSError: as `ProceduralDataset`, `FolderDataset`, `MetadataDataset`, `PetDataset`,
            `ClassFoldersDataset` and `ShardsDataset`.
    """
    kind, root = parse_source(source)
    if kind == PROCEDURAL:
        return ProceduralDataset(cast(Split, split), images, transform=transform, recipe=recipe)
    if kind == PET:
        return PetDataset(root, split, transform=transform, classes=classes, skip_broken=skip_broken)
    if kind in METADATA:
        return MetadataDataset(kind, root, split, transform=transform, classes=classes, skip_broken=skip_broken)
    if kind == IMAGES:
        return ClassFoldersDataset(root, split, transform=transform, classes=classes, skip_broken=skip_broken)
    if kind == SHARDS:
        return ShardsDataset(root, split, transform=transform, classes=classes, skip_broken=skip_broken)
    return FolderDataset(root, f"{split}.csv", transform=transform, classes=classes, skip_broken=skip_broken)
