"""Oxford-IIIT Pet: 37 breeds of cats and dogs, with trimaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import OxfordIIITPet  # type: ignore[import-untyped]

from iir_fast.data.dataset import Transform
from iir_fast.data.faults import Fault, OnFault, raise_fault
from iir_fast.data.ground_truth import GroundTruth
from iir_fast.data.images import read_size, read_trimap
from iir_fast.data.listing import ListedDataset, ListedMasks, Listing
from iir_fast.data.records import at, check_path, name_classes, parse_whole, read_records

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
        transform: makes the tensor of an RGB image.
        classes: class names in the order of the labels; by default the 37 breeds.
        skip_broken: decode every image and its trimap once and leave out images where that fails.

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
            _download(Path(root))
        super().__init__(list_pet(Path(root), split, classes), transform, skip_broken)

    def ground_truth(self, i: int) -> GroundTruth:
        """Size of image `i`, its box and its mask and ignore region, all from the trimap.

        Raises:
            BrokenImageError: the image is missing or has no readable header, or the trimap is missing or is none.
            ValueError: the trimap is not of the image's size.
        """
        path = self.ids[i]
        size = read_size(self.listing.root, path)
        (file,) = self.listing.masks[path].masks
        trimap = read_trimap(self.listing.root, file)
        self.listing.check_mask_size(path, size, file, (trimap.shape[1], trimap.shape[0]), raise_fault)
        inside = trimap != BACKGROUND
        columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
        edges = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]] if len(columns) else []
        return GroundTruth(
            size=size,
            boxes=np.array(edges, np.float64).reshape(-1, 4),
            masks=((trimap == OBJECT).astype(np.uint8),),
            ignore=(trimap == UNDECIDED).astype(np.uint8),
        )


def list_pet(root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault) -> Listing:
    """What the list of a split says: lines of image, breed from 1 on, species, and breed among the species.

    Args:
        root: folder that holds `oxford-iiit-pet`.
        split: "train" or "test".
        classes: class names; by default the breeds of the training split.
        on_fault: is handed every fault; where it returns, what is faulty is passed over.

    Raises:
        FileNotFoundError: there is no such list.
        Fault: unless `on_fault` returns. A line is malformed, or a breed and its number do not belong together.
    """
    file = root / FOLDER / "annotations" / f"{PET_SPLITS[split]}.txt"
    if classes is None and split != "train":
        classes = list_pet(root, "train", on_fault=on_fault).classes
    indices = {name: i for i, name in enumerate(classes or ())}
    breeds: dict[str, tuple[int, str]] = {}
    for number, (image, breed, *_) in read_records(file, "image breed species number", None, on_fault):
        name = _breed(image)
        try:
            check_path(image, file, number)
            label = parse_whole(breed, "breed", at(file, number), 1) - 1
            if image in breeds:
                raise Fault("duplicate id", f"{at(file, number)}: {image} is listed already")
            if classes is not None and indices.get(name) != label:
                raise Fault("label", f"{at(file, number)}: breed {breed} is not that of {name!r} in the training split")
            breeds[image] = label, name
        except Fault as fault:
            on_fault(fault)
    if not breeds:
        on_fault(Fault("missing line", f"{file} lists no image"))
    if classes is None:
        classes = name_classes(breeds.values(), str(file), on_fault)
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
    """The breed that an image's name names, as torchvision writes it: "american_bulldog_7", "American Bulldog"."""
    return " ".join(part.title() for part in image.rpartition("_")[0].split("_"))


def _download(root: Path) -> None:
    try:
        OxfordIIITPet(root, download=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{root / FOLDER} lacks images/ or annotations/, and Oxford-IIIT Pet cannot be downloaded: {error}. "
            "With both of them there, no download is needed."
        ) from error
