"""Images for those who have none at hand: the package's embedded data set, as image files."""

from __future__ import annotations

from pathlib import Path

from iir_fast.data import ProceduralDataset


def write_images(root: Path, train: int = 800, val: int = 200) -> Path:
    """Write generated images of ten classes in torchvision's ImageFolder layout.

    Args:
        root: gets train/class_0/00000.png and so on, and the same under val/.
        train: number of training images.
        val: number of validation images.

    Returns:
        `root`.
    """
    for folder, dataset in (("train", ProceduralDataset("train", train)), ("val", ProceduralDataset("test", val))):
        for name in dataset.classes:
            (root / folder / name).mkdir(parents=True, exist_ok=True)
        for i, label in enumerate(dataset.labels):
            dataset.image(i).save(root / folder / dataset.classes[label] / f"{i:05d}.png")
    return root
