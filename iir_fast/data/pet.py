"""Oxford-IIIT Pet (Parkhi et al., "Cats and Dogs", CVPR 2012): 37 breeds of cats and dogs, with trimaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import OxfordIIITPet  # type: ignore[import-untyped]

from iir_fast.data.listing import ListedMasks, Listing
from iir_fast.data.records import (
    Fault,
    OnFault,
    at,
    check_path,
    class_limit,
    name_classes,
    parse_whole,
    raise_fault,
    read_records,
)

PET_SPLITS = {"train": "trainval", "test": "test"}
"""The splits, of 3,680 and 3,669 images, and the names of their lists."""

FOLDER = "oxford-iiit-pet"


def fetch_pet(root: Path, split: str) -> None:
    """Download Oxford-IIIT Pet to where torchvision has it, `oxford-iiit-pet/{images,annotations}`, if it is not there.

    Raises:
        OSError: it cannot be downloaded.
        ValueError: it has no such split.
    """
    if split not in PET_SPLITS:
        raise ValueError(f"split must be one of {', '.join(PET_SPLITS)}, got {split!r}")
    if not all((root / FOLDER / part).is_dir() for part in ("images", "annotations")):
        try:
            OxfordIIITPet(root, download=True)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{root / FOLDER} lacks images/ or annotations/, and Oxford-IIIT Pet cannot be downloaded: "
                f"{error}. With both of them there, no download is needed."
            ) from error


def list_pet(root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault) -> Listing:
    """List a split by its lines of image, breed from 1 on, species, and breed among the species."""
    file = root / FOLDER / "annotations" / f"{PET_SPLITS[split]}.txt"
    if classes is None and split != "train":
        classes = list_pet(root, "train", on_fault=on_fault).classes
    indices = {name: i for i, name in enumerate(classes or ())}
    breeds: dict[str, tuple[int, str]] = {}
    lines = list(read_records(file, "image breed species number", None, on_fault))
    limit = class_limit(len(lines))
    for number, (image, breed, *_) in lines:
        name, where = _breed(image), at(file, number)
        try:
            check_path(image, where)
            label = parse_whole(breed, "breed", where, 1) - 1
            if label >= limit:
                raise Fault("label", f"{where}: breed must be {limit} or less, for {len(lines):,} images, got {breed}")
            if image in breeds:
                raise Fault("duplicate id", f"{where}: {image} is listed already")
            if classes is not None and indices.get(name) != label:
                raise Fault("label", f"{where}: breed {breed} is not that of {name!r} in the training split")
            breeds[image] = label, name
        except Fault as fault:
            on_fault(fault)
    if not breeds:
        on_fault(Fault("missing line", f"{file} lists no image"))
    if classes is None:
        classes = name_classes(breeds.values(), file, on_fault)
    paths = {image: f"images/{image}.jpg" for image in breeds}
    return Listing(
        root=root / FOLDER,
        split=split,
        classes=tuple(classes),
        ids=tuple(paths.values()),
        labels=tuple(label for label, _ in breeds.values()),
        masks={path: ListedMasks((f"annotations/trimaps/{image}.png",)) for image, path in paths.items()},
        masks_are="trimaps",
    )


def _breed(image: str) -> str:
    """Name the breed in an image's name, as torchvision writes it: "american_bulldog_7", "American Bulldog"."""
    return " ".join(part.title() for part in image.rpartition("_")[0].split("_"))
