"""Data sets by name: the embedded one, or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.folder import FolderDataset
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset, ProceduralRecipe, Split

PROCEDURAL = "procedural"


def has_split(source: str, split: str) -> bool:
    """Whether `open_split` finds that split."""
    return split in SPLIT_SIZES if source == PROCEDURAL else (Path(source) / f"{split}.csv").is_file()


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
        source: "procedural", or a folder that holds `<split>.csv`.
        split: "train" or "test"; of a folder, any for which there is a CSV.
        transform: makes the tensor of an RGB image.
        classes: class names of the training split, for a folder's other splits.
        skip_broken: leave out a folder's unreadable images.
        images: size of the embedded split, if another than its own.
        recipe: how hard the embedded data are, if not as usual.

    Raises:
        ValueError, FileNotFoundError: as `ProceduralDataset` and `FolderDataset`.
    """
    if source != PROCEDURAL:
        return FolderDataset(
            Path(source), f"{split}.csv", transform=transform, classes=classes, skip_broken=skip_broken
        )
    return ProceduralDataset(cast(Split, split), images, transform=transform, recipe=recipe)
