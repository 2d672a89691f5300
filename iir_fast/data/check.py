"""Is a data set all there and sound? Every fault at once, where the readers stop at the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from rich.table import Table

from iir_fast.app.progress import in_threads
from iir_fast.app.tables import tabulate
from iir_fast.data.images import BrokenImageError
from iir_fast.data.listing import Listing
from iir_fast.data.metadata import METADATA
from iir_fast.data.procedural import SPLIT_SIZES, ProceduralDataset
from iir_fast.data.records import SPLITS, Fault, holds_text
from iir_fast.data.sources import PROCEDURAL, has_split, list_split, parse_source

SHOWN = 20
"""Faults of one kind that the page shows; all of them are counted."""


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds.

    Attributes:
        split: its name.
        images: images listed.
        classes: classes that occur.
        fewest: images of the class that has fewest, of all classes of the data set.
        most: images of the class that has most.
        boxes: boxes listed.
        masks: masks listed.
    """

    split: str
    images: int
    classes: int
    fewest: int
    most: int
    boxes: int
    masks: int


@dataclass(frozen=True)
class DataReport:
    """Result of a check.

    Attributes:
        source: what was checked.
        splits: what is there.
        faults: what breaks loading or spoils figures.
        warnings: what is unusual, in sentences.
    """

    source: str
    splits: tuple[SplitSummary, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON takes it."""
        return {
            "source": self.source,
            "splits": [asdict(split) for split in self.splits],
            "faults": [vars(fault) for fault in self.faults],
            "warnings": list(self.warnings),
        }

    def table(self) -> Table:
        """Tabulate the splits."""
        header = ("split", "images", "classes", "images per class", "boxes", "masks")
        rows = []
        for each in self.splits:
            per_class = f"{each.fewest:,} to {each.most:,}"
            counts = f"{each.images:,}", f"{each.classes:,}", per_class, f"{each.boxes:,}", f"{each.masks:,}"
            rows.append((each.split, *counts))
        return tabulate(header, rows, self.source)

    def lines(self) -> list[str]:
        """Say faults by kind, then warnings, then how many faults there are."""
        lines = []
        for kind, count in Counter(fault.kind for fault in self.faults).items():
            lines.append(f"{kind} ({count:,})")
            messages = [fault.message for fault in self.faults if fault.kind == kind]
            lines += [f"  {message}" for message in messages[:SHOWN]]
            if count > SHOWN:
                lines.append(f"  and {count - SHOWN:,} more")
        lines += [f"note: {warning}" for warning in self.warnings]
        lines.append(f"{len(self.faults):,} faults" if self.faults else "no faults")
        return lines


def check_data(source: str, decode: bool = False, raw_orientation: bool = False) -> DataReport:
    """Check the splits train, val and test of a data set: the text files, then every image and mask they name.

    A fault is what breaks loading or spoils figures; a number of images that is not the official one is a warning.

    Args:
        source: what `open_split` takes; nothing is downloaded.
        decode: decode all images and masks, which finds truncated ones; by default their headers are read.
        raw_orientation: read one's own images as they are stored.

    Returns:
        What is there and all that is wrong with it.

    Raises:
        FileNotFoundError: there is no split at all.
    """
    if source == PROCEDURAL:
        splits = map(ProceduralDataset, SPLIT_SIZES)
        return DataReport(source, tuple(_summarize(each, len(each), len(each)) for each in splits), (), ())
    faults: list[Fault] = []
    listings: list[Listing] = []
    for split in SPLITS:
        if has_split(source, split):
            classes = listings[0].classes if listings and listings[0].split == "train" else None
            try:
                listings.append(list_split(source, split, classes, faults.append, raw_orientation=raw_orientation))
            except FileNotFoundError as error:
                faults.append(Fault("missing file", str(error)))
    if not listings:
        found = f": {faults[0]}" if faults else "; see `iir-fast data check --help` for what is wanted there"
        raise FileNotFoundError(f"source {source} has no split to check{found}")
    summaries: list[SplitSummary] = []
    remarks: list[str] = []
    for listing in listings:
        examine = partial(listing.examine, decode=decode)
        examined = in_threads(examine, listing.ids, f"Checking {listing.split}")
        for path, each in zip(listing.ids, examined, strict=True):
            faults += [_as_fault(path, problem) for problem in each.problems]
        remarks += listing.remarks_on(sum(each.is_turned for each in examined))
        faults += _unannotated(source, listing)
        masks = _count_masks(listing)
        boxes = masks if listing.masks_are == "trimaps" else _count_boxes(listing)
        summaries.append(_summarize(listing, boxes, masks))
    for first, second in combinations(listings, 2):
        for path in sorted(set(first.ids) & set(second.ids)):
            faults.append(Fault("in two splits", f"{path} is in {first.split} and in {second.split}"))
    warnings = dict.fromkeys([*remarks, *_warnings(source, listings)])
    return DataReport(source, tuple(summaries), tuple(faults), tuple(warnings))


def _as_fault(path: str, problem: ValueError) -> Fault:
    """Give what is wrong with the files of one image as a fault."""
    if isinstance(problem, Fault):
        return problem
    assert isinstance(problem, BrokenImageError)
    missing = isinstance(problem.__cause__, FileNotFoundError)
    if problem.path == path:
        return Fault("missing image" if missing else "unreadable image", str(problem))
    return Fault("missing mask" if missing else "unreadable mask", f"{path}: {problem}")


def _unannotated(source: str, listing: Listing) -> Iterator[Fault]:
    """Name what keeps a split from being evaluated; the training split need not be."""
    kind, root = parse_source(source)
    if listing.split == "train":
        return
    if kind in METADATA:
        file = METADATA[kind].metadata(root, listing.split) / "localization.txt"
        if not holds_text(file):
            found = "is empty" if file.is_file() else "does not exist or is not a file"
            yield Fault("missing file", f"{file} {found}")
    if listing.masks and not (kind in METADATA and METADATA[kind].annotation == "masks"):
        for path in listing.ids:
            if path not in listing.masks:
                yield Fault("missing mask", f"{path} has no mask, while other images of {listing.split} have one")


def _warnings(source: str, listings: Sequence[Listing]) -> Iterator[str]:
    kind, _ = parse_source(source)
    for split in ("train", "test"):
        if all(listing.split != split for listing in listings):
            yield f"there is no {split} split"
    for listing in listings:
        if listing.split != "train" and not listing.boxes and not listing.masks:
            yield f"{listing.split} has neither boxes nor masks: it can be classified, not localized"
    for listing in listings if kind in METADATA else ():
        layout, split = METADATA[kind], listing.split
        counts = {"boxes": _count_boxes(listing), "masks": _count_masks(listing)}
        for what, count, official in (
            ("images", len(listing.ids), layout.images.get(split)),
            (layout.annotation, counts[layout.annotation], layout.annotations.get(split)),
        ):
            if official is not None and count != official:
                yield f"{split} has {count:,} {what}; {layout.title} officially has {official:,}"


def _count_boxes(listing: Listing) -> int:
    return sum(map(len, listing.boxes.values()))


def _count_masks(listing: Listing) -> int:
    return sum(len(each.masks) for each in listing.masks.values())


def _summarize(split: Listing | ProceduralDataset, boxes: int, masks: int) -> SplitSummary:
    labels = split.labels
    counts = np.bincount(labels, minlength=len(split.classes)) if labels else np.zeros(1, int)
    occurring = int(np.count_nonzero(counts))
    return SplitSummary(split.split, len(labels), occurring, int(counts.min()), int(counts.max()), boxes, masks)
