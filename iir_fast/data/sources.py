"""Data sets by name: what a configuration or a command line calls a source of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from iir_fast.data.class_folders import ClassFoldersDataset, list_class_folders
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.folder import FolderDataset, list_folder
from iir_fast.data.listing import ListedDataset, Listing
from iir_fast.data.metadata import METADATA, MetadataDataset, MetadataLayout, list_metadata
from iir_fast.data.pet import PET_SPLITS, PetDataset, list_pet
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset, ProceduralRecipe, Split
from iir_fast.data.records import OnFault, raise_fault
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


_LAYOUTS = {
    **{name: _metadata(name, layout) for name, layout in METADATA.items()},
    "pet": _Layout(lambda root, split: split in PET_SPLITS, list_pet, PetDataset),
    "images": _Layout(lambda root, split: (root / split).is_dir(), list_class_folders, ClassFoldersDataset),
    "shards": _Layout(lambda root, split: bool(find_shards(root / split)), list_shards, ShardsDataset),
    FOLDER: _Layout(
        lambda root, split: (root / f"{split}.csv").is_file(),
        lambda root, split, *rest: list_folder(root, f"{split}.csv", *rest),
        lambda root, split, **options: FolderDataset(root, f"{split}.csv", **options),
    ),
}


def parse_source(source: str) -> tuple[str, Path]:
    """Tell the kind of a source, "procedural", "folder", or what stands before a colon, e.g. "cub", and its root."""
    kind, _, root = source.partition(":")
    if root and kind in _LAYOUTS and kind != FOLDER:
        return kind, Path(root)
    return (PROCEDURAL, Path()) if source == PROCEDURAL else (FOLDER, Path(source))


def has_split(source: str, split: str) -> bool:
    """Find out whether a data set has that split; only the folder or the file that would list it is looked for.

    Args:
        source: as `open_split` takes it.
        split: name of the split.

    Returns:
        True if `open_split` would find it.
    """
    kind, root = parse_source(source)
    return split in SPLIT_SIZES if kind == PROCEDURAL else _LAYOUTS[kind].has(root, split)


def list_split(
    source: str, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """List what the files of one split say, of any source but "procedural"."""
    kind, root = parse_source(source)
    return _LAYOUTS[kind].list(root, split, classes, on_fault)


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
    """Open one split of a data set.

    Args:
        source: "procedural"; a folder that holds `<split>.csv`; "cub:ROOT", "ilsvrc:ROOT" or "openimages:ROOT" with the
            images and `metadata/` below ROOT, or "ilsvrc-proxy:ROOT" and so on with the proxy of the training split,
            which the protocol searches hyper-parameters on; "pet:ROOT" for Oxford-IIIT Pet, which downloads itself;
            "images:ROOT" with images below ROOT/<split>/<class>; "shards:ROOT" with tar shards in ROOT/<split>.
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
    return _LAYOUTS[kind].dataset(root, split, transform=transform, classes=classes, skip_broken=skip_broken)
