"""One split of a data set as its files list it, and the data set made of such a listing.

Every layout has a function that lists a split: from its root, the name of the split, the class names of the training
split (None: found out there) and an `OnFault`, which is handed all that is wrong. It raises FileNotFoundError where the
split is not there, and opens no image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_fast.app.progress import in_threads
from iir_fast.data.dataset import GroundTruth, LocalizationDataset, Transform, box_around
from iir_fast.data.images import (
    BrokenImageError,
    ImageRoot,
    read_header,
    read_image,
    read_mask,
    read_stamp,
    read_trimap,
)
from iir_fast.data.records import Fault, OnFault, raise_fault

Size: TypeAlias = tuple[int, int]
OBJECT, BACKGROUND, UNDECIDED = 1, 2, 3
"""Values of a trimap. Its object is the mask, and what is not decided, a band along the outline, is to be ignored. The
box holds both: thin parts such as ears and tails are nothing but band."""


class ListedBox(NamedTuple):
    """A box x0, y0, x1, y1 in pixels, and the file and line that state it."""

    where: str
    edges: tuple[float, ...]


class ListedMasks(NamedTuple):
    """Paths of an image's masks, one per instance, and of its ignore region; empty where it has none."""

    masks: tuple[str, ...] = ()
    ignore: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.masks, self.ignore) if self.ignore else self.masks


class Examined(NamedTuple):
    """What the files of one image show."""

    problems: tuple[ValueError, ...]
    """Faults, and files that cannot be read."""
    is_turned: bool
    """Whether an EXIF orientation is applied to the image."""


@dataclass(frozen=True)
class Listing:
    """What the files of one split say, before any image is opened.

    Attributes:
        root: folder that all paths are relative to, or shards that stand for one.
        split: name of the split.
        classes: class names; a label is an index into them.
        ids: paths of the images.
        labels: one label per image.
        sizes: (width, height) by path, where the files state it.
        boxes: boxes by path.
        masks: masks by path.
        masks_are: masks of their images' size, masks at any resolution, or trimaps (one per image, of its size).
        upright: images and masks are read upright, as one's own boxes are drawn, and not as they are stored.
        is_ones_own: `ListedDataset.check` reads the headers of a training split too: a million of a benchmark would
            take minutes, and in shards each is read with all of its image.
        remarks: how the split was found, and what was left out, in sentences.
    """

    root: ImageRoot
    split: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    sizes: dict[str, Size] = field(default_factory=dict)
    boxes: dict[str, list[ListedBox]] = field(default_factory=dict)
    masks: dict[str, ListedMasks] = field(default_factory=dict)
    masks_are: Literal["sized", "scaled", "trimaps"] = "sized"
    upright: bool = False
    is_ones_own: bool = False
    remarks: tuple[str, ...] = ()

    def check_boxes(self, path: str, size: Size, on_fault: OnFault) -> None:
        """Report the boxes that leave an image of this size."""
        for where, (x0, y0, x1, y1) in self.boxes.get(path, ()):
            if x1 > size[0] or y1 > size[1]:
                text = f"the box {x0:g},{y0:g},{x1:g},{y1:g} leaves its image, {size[0]} x {size[1]} pixels"
                on_fault(Fault("box outside", f"{where}: {text}"))

    def check_mask_size(self, path: str, size: Size, mask: str, mask_size: Size, on_fault: OnFault) -> None:
        """Report a mask that is not of its image's size or, where masks are scaled, not of its proportions."""
        (width, height), (mask_width, mask_height) = size, mask_size
        fits, accepted = size == mask_size, "the same size is"
        if self.masks_are == "scaled":
            # Image and mask come from one original, by a factor each, and their sides were rounded to pixels.
            off = abs(mask_width * height - mask_height * width)
            fits, accepted = off <= max(width + height, mask_width + mask_height), "the same proportions are"
        if not fits:
            found = f"is {mask_width} x {mask_height} pixels, its image {path} {width} x {height}"
            on_fault(Fault("mask size", f"The mask {mask} {found}; {accepted} accepted."))

    def masks_of(self, path: str) -> ListedMasks:
        """Look up the masks of an image."""
        return self.masks.get(path, ListedMasks())

    def read_mask(self, file: str) -> NDArray[np.uint8]:
        """Read a mask, uint8 [height, width], or where masks are trimaps a trimap."""
        return read_trimap(self.root, file) if self.masks_are == "trimaps" else read_mask(self.root, file, self.upright)

    def examine(self, path: str, decode: bool = False) -> Examined:
        """Look at the files of one image: their headers, or with `decode` all of them."""
        problems: list[ValueError] = []
        size, is_turned = None, False
        try:
            size, is_turned = read_header(self.root, path, self.upright)
            if decode:
                size = read_image(path, self.root, upright=self.upright).size
        except BrokenImageError as error:
            problems.append(error)
        stated = self.sizes.get(path)
        if size and stated and size != stated:
            text = f"{path} is {size[0]} x {size[1]} pixels, image_sizes.txt states {stated[0]} x {stated[1]}"
            problems.append(Fault("image size", text))
        elif size and not stated:
            self.check_boxes(path, size, problems.append)
        for file in self.masks_of(path).files:
            try:
                mask = self.read_mask(file).shape[::-1] if decode else read_header(self.root, file, self.upright).size
            except BrokenImageError as error:
                problems.append(error)
            else:
                if size:
                    self.check_mask_size(path, size, file, (mask[0], mask[1]), problems.append)
        return Examined(tuple(problems), is_turned)

    def remarks_on(self, turned: int) -> tuple[str, ...]:
        """Say what is to be known of the split, so many of whose images are turned upright."""
        found = list(self.remarks)
        if turned:
            text = f"{turned:,} of {len(self.ids):,} images are turned upright, as their EXIF orientation says"
            found.append(f"{self.split}: {text}; boxes are in the pixels of the upright image.")
        without = sum(path not in self.boxes for path in self.ids)
        if self.split != "train" and 0 < without < len(self.ids):
            text = f"{without:,} of {len(self.ids):,} images have no box; they count for the classification alone"
            found.append(f"{self.split}: {text}.")
        return tuple(found)

    def is_sound(self, path: str) -> bool:
        """Find out whether an image and its masks can be decoded."""
        try:
            read_image(path, self.root, upright=self.upright)
            for file in self.masks_of(path).files:
                self.read_mask(file)
        except BrokenImageError:
            return False
        return True


class ListedDataset(LocalizationDataset):
    """The image files of a listing.

    Args:
        listing: what there is.
        transform: makes the tensor of an RGB image.
        skip_broken: decode every image and its masks once, and leave out images where that fails.

    Raises:
        ValueError: no image is left.
    """

    def __init__(self, listing: Listing, transform: Transform, skip_broken: bool = False) -> None:
        skipped: tuple[str, ...] = ()
        if skip_broken:
            sound = in_threads(listing.is_sound, listing.ids, "Checking images")
            skipped = tuple(path for path, ok in zip(listing.ids, sound, strict=True) if not ok)
            if not any(sound):
                first = listing.root / skipped[0]
                raise ValueError(f"Not one image of the split {listing.split} can be read; the first is {first}")
            ids, labels = tuple(compress(listing.ids, sound)), tuple(compress(listing.labels, sound))
            listing = replace(listing, ids=ids, labels=labels)
        self.listing = listing
        super().__init__(
            classes=listing.classes,
            labels=listing.labels,
            ids=listing.ids,
            split=listing.split,
            transform=transform,
            skipped=skipped,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of paths, file sizes, times of modification and labels; computed when first asked for, by many threads.

        Raises:
            BrokenImageError: an image file is missing.
        """
        # How pixels are made of a file decides as well: read upright or not, and since 0.1 laid on white.
        digest = hashlib.sha256(repr(("on white", self.listing.upright)).encode())
        stamps = in_threads(partial(read_stamp, self.listing.root), self.ids, "Looking up images")
        for path, stamp, label in zip(self.ids, stamps, self.labels, strict=True):
            digest.update(repr((path, *stamp, label)).encode())
        return digest.hexdigest()[:16]

    def check(self) -> tuple[str, ...]:
        """Look at every file: at its header, or, of a training split that is not one's own, whether it is there.

        Returns:
            What is to be known of the split, in sentences.

        Raises:
            BrokenImageError: an image or a mask is missing or has no readable header.
            ValueError: a box leaves its image, or a size is not what it should be.
        """
        return self._remarks

    @cached_property
    def _remarks(self) -> tuple[str, ...]:
        """What `check` finds; a data set that has checked itself when it was made is not looked at again."""
        if self.split == "train" and not self.listing.is_ones_own:
            _ = self.fingerprint
            return self.listing.remarks_on(0)
        turned = 0
        for examined in in_threads(self.listing.examine, self.ids, f"Checking {self.split}"):
            for problem in examined.problems:
                raise problem
            turned += examined.is_turned
        return self.listing.remarks_on(turned)

    def image(self, i: int) -> Image.Image:
        """Read image `i`, converted to RGB.

        Raises:
            BrokenImageError: it is missing, unreadable, truncated, or has no 8-bit form.
        """
        return read_image(self.ids[i], self.listing.root, upright=self.listing.upright)

    def ground_truth(self, i: int) -> GroundTruth:
        """Read size, boxes, masks and ignore region of image `i`, as far as the data set has them.

        Raises:
            BrokenImageError: the image or a mask is unreadable.
            ValueError: a mask is not of the image's size, where it should be.
        """
        listing, path = self.listing, self.ids[i]
        size = listing.sizes.get(path)
        edges = [box.edges for box in listing.boxes.get(path, ())]
        if size is None and (edges or listing.masks_are != "scaled"):
            size = read_header(listing.root, path, listing.upright).size
        listed = listing.masks_of(path)
        masks = {file: listing.read_mask(file) for file in listed.files}
        if size and listing.masks_are != "scaled":
            for file, mask in masks.items():
                listing.check_mask_size(path, size, file, (mask.shape[1], mask.shape[0]), raise_fault)
        if listing.masks_are == "trimaps":
            (trimap,) = masks.values()
            mask, ignore = ((trimap == value).astype(np.uint8) for value in (OBJECT, UNDECIDED))
            return GroundTruth(size, box_around(trimap != BACKGROUND), (mask,), ignore)
        return GroundTruth(
            size=size,
            boxes=np.array(edges, np.float64).reshape(-1, 4),
            masks=tuple(masks[file] for file in listed.masks),
            ignore=masks.get(listed.ignore),
        )
