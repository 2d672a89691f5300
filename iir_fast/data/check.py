"""Is a data set all there and sound? Every fault at once, where the readers stop at the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from iir_fast.data.faults import Fault, OnFault
from iir_fast.data.images import BrokenImageError, in_threads, read_image, read_size
from iir_fast.data.listing import ListedMasks, Listing, Size
from iir_fast.data.metadata_files import METADATA
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset
from iir_fast.data.report import DataReport, SplitSummary
from iir_fast.data.sources import PROCEDURAL, has_split, list_split, parse_source

SPLITS = ("train", "val", "test")


def check_data(source: str, decode: bool = False) -> DataReport:
    """Check the splits train, val and test of a data set: the text files, then every image and mask they name.

    A fault is what breaks loading or spoils figures; a number of images that is not the official one is a warning.

    Args:
        source: what `open_split` takes; nothing is downloaded.
        decode: decode all images and masks, which finds truncated ones; by default their headers are read.

    Returns:
        What is there and all that is wrong with it.

    Raises:
        FileNotFoundError: there is no split at all.
    """
    if source == PROCEDURAL:
        return DataReport(source, tuple(_summarize_procedural()), (), ())
    faults: list[Fault] = []
    listings: list[Listing] = []
    for split in SPLITS:
        if has_split(source, split):
            classes = listings[0].classes if listings and listings[0].split == "train" else None
            try:
                listings.append(list_split(source, split, classes, faults.append))
            except FileNotFoundError as error:
                faults.append(Fault("missing file", str(error)))
    if not listings:
        found = f": {faults[0]}" if faults else "; see `iir-fast data check --help` for what is wanted there"
        raise FileNotFoundError(f"source {source} has no split to check{found}")
    for listing in listings:
        examined = in_threads(partial(_examine, listing, decode), listing.ids, f"Checking {listing.split}")
        faults += [fault for found in examined for fault in found]
        faults += _unannotated(source, listing)
    faults += _shared(listings)
    return DataReport(source, tuple(map(_summarize, listings)), tuple(faults), tuple(_warnings(source, listings)))


def _examine(listing: Listing, decode: bool, path: str) -> tuple[Fault, ...]:
    """What is wrong with the files of one image."""
    faults: list[Fault] = []
    size: Size | None = None
    try:
        size = read_image(path, listing.root).size if decode else read_size(listing.root, path)
    except BrokenImageError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        faults.append(Fault("missing image" if missing else "unreadable image", str(error)))
    stated = listing.sizes.get(path)
    if size and stated and size != stated:
        text = f"{path} is {size[0]} x {size[1]} pixels, image_sizes.txt states {stated[0]} x {stated[1]}"
        faults.append(Fault("image size", text))
    elif size and not stated:
        listing.check_boxes(path, size, faults.append)
    for file in listing.masks.get(path, ListedMasks()).files:
        _examine_mask(listing, decode, path, size, file, faults.append)
    return tuple(faults)


def _examine_mask(listing: Listing, decode: bool, path: str, size: Size | None, file: str, on_fault: OnFault) -> None:
    try:
        if decode:
            height, width = listing.read_mask(file).shape
        else:
            width, height = read_size(listing.root, file)
    except BrokenImageError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        on_fault(Fault("missing mask" if missing else "unreadable mask", f"{path}: {error}"))
    else:
        if size:
            listing.check_mask_size(path, size, file, (width, height), on_fault)


def _unannotated(source: str, listing: Listing) -> Iterator[Fault]:
    """What keeps a split from being evaluated; the training split need not be."""
    kind, root = parse_source(source)
    if listing.split == "train":
        return
    if kind in METADATA:
        file = METADATA[kind].metadata(root, listing.split) / "localization.txt"
        if not file.is_file():
            yield Fault("missing file", f"{file} does not exist or is not a file")
    elif listing.masks:
        for path in listing.ids:
            if path not in listing.masks:
                yield Fault("missing mask", f"{path} has no mask, while other images of {listing.split} have one")


def _shared(listings: Sequence[Listing]) -> Iterator[Fault]:
    for first, second in combinations(listings, 2):
        for path in sorted(set(first.ids) & set(second.ids)):
            yield Fault("in two splits", f"{path} is in {first.split} and in {second.split}")


def _warnings(source: str, listings: Sequence[Listing]) -> Iterator[str]:
    kind, _ = parse_source(source)
    splits = {listing.split: listing for listing in listings}
    for split in ("train", "test"):
        if split not in splits:
            yield f"there is no {split} split"
    for split, listing in splits.items():
        if split != "train" and not listing.boxes and not listing.masks:
            yield f"{split} has neither boxes nor masks: it can be classified, not localized"
    if kind in METADATA:
        layout = METADATA[kind]
        for split, listing in splits.items():
            counts = {"images": (len(listing.ids), layout.images.get(split))}
            counts["boxes"] = (sum(map(len, listing.boxes.values())), layout.boxes.get(split))
            for what, (count, official) in counts.items():
                if official is not None and count != official:
                    yield f"{split} has {count:,} {what}; {layout.title} officially has {official:,}"


def _summarize(listing: Listing) -> SplitSummary:
    masks = sum(len(each.masks) for each in listing.masks.values())
    boxes = masks if listing.masks_are == "trimaps" else sum(map(len, listing.boxes.values()))
    return _summary(listing.split, listing.labels, len(listing.classes), boxes, masks)


def _summarize_procedural() -> Iterator[SplitSummary]:
    for split in SPLIT_SIZES:
        dataset = ProceduralDataset(split)
        yield _summary(split, dataset.labels, len(dataset.classes), len(dataset), len(dataset))


def _summary(split: str, labels: Sequence[int], num_classes: int, boxes: int, masks: int) -> SplitSummary:
    counts = np.bincount(labels, minlength=num_classes) if labels else np.zeros(1, int)
    occurring = int(np.count_nonzero(counts))
    return SplitSummary(split, len(labels), occurring, int(counts.min()), int(counts.max()), boxes, masks)
