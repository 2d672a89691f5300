"""Oxford-IIIT Pet: 37 breeds of cats and dogs, with trimaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import OxfordIIITPet  # type: ignore[import-untyped]

from iir_fast.data.dataset import GroundTruth, Transform, box_around
from iir_fast.data.listing import ListedDataset, ListedMasks, Listing
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
"""The splits and the names of their lists."""

FOLDER = "oxford-iiit-pet"
OBJECT, BACKGROUND, UNDECIDED = 1, 2, 3


class PetDataset(ListedDataset):
    """One split of Oxford-IIIT Pet (Parkhi et al., "Cats and Dogs", CVPR 2012), downloaded where it is missing.

    The trimaps tell object (1), background (2) and a band along the outline that is not decided (3). The mask is the
    object; the band is to be ignored. The box holds both, x1 and y1 exclusive: thin parts such as ears and tails are
    nothing but band, and a box of the decided pixels alone would cut them off.

    Args:
        root: folder that holds, or is to hold, `oxford-iiit-pet/{images,annotations}`, as torchvision has it.
        split: "train" (the official trainval, 3,680 images) or "test" (3,669).
        classes: class names in the order of the labels; by default the 37 breeds.
        transform, skip_broken: as `open_split` takes them.

    Raises:
        OSError: the data are not there and cannot be downloaded.
        ValueError: `split` is unknown or a line of its list is malformed; the message has file and line. Or no image
            is left.
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
        if split not in PET_SPLITS:
            raise ValueError(f"split must be one of {', '.join(PET_SPLITS)}, got {split!r}")
        if not all((Path(root) / FOLDER / part).is_dir() for part in ("images", "annotations")):
            try:
                OxfordIIITPet(Path(root), download=True)
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"{Path(root) / FOLDER} lacks images/ or annotations/, and Oxford-IIIT Pet cannot be downloaded: "
                    f"{error}. With both of them there, no download is needed."
                ) from error
        super().__init__(list_pet(Path(root), split, classes), transform, skip_broken)

    def ground_truth(self, i: int) -> GroundTruth:
        """Read size of image `i`, and of its trimap, with the same errors, its box and its mask and ignore region."""
        truth = super().ground_truth(i)
        (trimap,) = truth.masks
        mask, ignore = ((trimap == value).astype(np.uint8) for value in (OBJECT, UNDECIDED))
        return GroundTruth(truth.size, box_around(trimap != BACKGROUND), (mask,), ignore)


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
