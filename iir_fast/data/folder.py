"""Data sets of image files, with a CSV of labels and boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from iir_fast.data.annotations import Annotation, class_indices, class_names, read_annotations
from iir_fast.data.dataset import LocalizationDataset, Transform
from iir_fast.data.ground_truth import GroundTruth

_PROGRESS_FROM = 2000  # images; fewer are checked before a progress bar would be of use


class BrokenImageError(ValueError):
    """An image file is missing, unreadable or truncated.

    Attributes:
        path: of the file, relative to the root of the data set.
        reason: what went wrong.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The image {self.path} cannot be read: {self.reason}"


class FolderDataset(LocalizationDataset):
    """The images that a CSV lists, below one root folder.

    The CSV has the header ``path,label,x0,y0,x1,y1``: paths relative to the root, a class name or number, and one box
    in pixels, x1 and y1 exclusive; several lines with one path are several boxes. The four box columns may be absent.
    A mask, if there is one, is ``masks/`` and the image's path with the suffix ``.png``, non-zero on the object.
    Pixels are taken as stored: an EXIF orientation is not applied.

    The headers of all images that have boxes are read at construction, so that a box outside its image is reported
    before any work is done.

    Args:
        root: the folder.
        csv: the CSV's path relative to `root`; its stem becomes the name of the split.
        transform: makes the tensor of an RGB image.
        classes: class names in the order of their indices; a test set must be given its training set's. By default
            the sorted labels of the CSV (by value if all of them are numbers). A label that is a number is an index,
            unless classes have numbers for names.
        skip_broken: decode every image and mask once at construction and leave out images where that fails.

    Attributes:
        skipped: paths of the images left out; empty without `skip_broken`.

    Raises:
        FileNotFoundError: there is no such CSV.
        ValueError: the CSV is malformed, a label is none of `classes`, a box is empty or outside its image; the
            message has the line number. Or no image is left.
        BrokenImageError: an image file is missing, or has boxes and no readable header.
    """

    def __init__(
        self,
        root: str | Path,
        csv: str = "train.csv",
        *,
        transform: Transform,
        classes: Sequence[str] | None = None,
        skip_broken: bool = False,
    ) -> None:
        self.root = Path(root)
        file = self.root / csv
        annotations = read_annotations(file)
        classes = class_names(annotations) if classes is None else tuple(classes)
        indices = class_indices(classes)
        for a in annotations:
            if a.label not in indices:
                raise ValueError(f"{file}, line {a.line}: label {a.label!r} is none of the {len(classes)} classes")

        sound = _find_sound(self.root, [a.path for a in annotations]) if skip_broken else [True] * len(annotations)
        self.skipped = tuple(a.path for a, ok in zip(annotations, sound, strict=True) if not ok)
        annotations = [a for a, ok in zip(annotations, sound, strict=True) if ok]
        if not annotations:
            raise ValueError(f"Not one image that {file} lists can be read; the first is {self.root / self.skipped[0]}")
        for a in annotations:
            _check_boxes(self.root, a, file)

        labels = tuple(indices[a.label] for a in annotations)
        ids = tuple(a.path for a in annotations)
        self._boxes = [a.box_array() for a in annotations]
        super().__init__(
            classes=classes,
            labels=labels,
            ids=ids,
            split=file.stem,
            fingerprint=_fingerprint(self.root, ids, labels),
            transform=transform,
        )

    def image(self, i: int) -> Image.Image:
        """Image `i`, converted to RGB.

        Raises:
            BrokenImageError: it is missing, unreadable, truncated, or has no 8-bit form.
        """
        return _read_rgb(self.root, self.ids[i])

    def ground_truth(self, i: int) -> GroundTruth:
        """Size, boxes and, if it has one, the mask of image `i`.

        Raises:
            BrokenImageError: the image or its mask is unreadable.
            ValueError: the mask is not of the image's size.
        """
        size = _read_size(self.root, self.ids[i])
        mask = _read_mask(self.root, self.ids[i])
        if mask is not None and mask.shape[::-1] != size:
            raise ValueError(f"The mask of {self.ids[i]} is {mask.shape[::-1]} pixels, the image {size}")
        return GroundTruth(size=size, boxes=self._boxes[i].copy(), masks=() if mask is None else (mask,))


def read_image(file: str | Path) -> Image.Image:
    """An image file in mode RGB, at its size, EXIF orientation not applied.

    Raises:
        BrokenImageError: it is missing, unreadable, truncated, or has no 8-bit form; the message names it.
    """
    return _read_rgb(Path(), str(file))


@contextmanager
def _opened(root: Path, path: str) -> Iterator[Image.Image]:
    try:
        with Image.open(root / path) as image:
            yield image
    # Pillow's decoders let through whatever their parsers meet: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        raise BrokenImageError(path, getattr(error, "strerror", None) or str(error)) from error


def _read_size(root: Path, path: str) -> tuple[int, int]:
    with _opened(root, path) as image:
        return image.size


def _read_rgb(root: Path, path: str) -> Image.Image:
    with _opened(root, path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its mode {image.mode} has more than 8 bits and would be clipped to white")
        return image.convert("RGB")


def _read_mask(root: Path, path: str) -> NDArray[np.uint8] | None:
    file = PurePosixPath("masks", path).with_suffix(".png").as_posix()
    if not (root / file).is_file():
        return None
    with _opened(root, file) as image:
        mask: NDArray[np.uint8] = (np.asarray(image.convert("L")) != 0).astype(np.uint8)
        return mask


def _is_sound(root: Path, path: str) -> bool:
    try:
        _read_rgb(root, path)
        _read_mask(root, path)
    except BrokenImageError:
        return False
    return True


def _find_sound(root: Path, paths: Sequence[str]) -> list[bool]:
    """For every path: can the image and its mask be decoded? Pillow decodes without the GIL, so threads do."""
    with ThreadPool() as pool:
        results = track(
            pool.imap(partial(_is_sound, root), paths, chunksize=16),
            description="Checking images",
            total=len(paths),
            console=Console(stderr=True),
            transient=True,
            disable=len(paths) < _PROGRESS_FROM,
        )
        return list(results)


def _check_boxes(root: Path, annotation: Annotation, file: Path) -> None:
    if not annotation.boxes:
        return
    width, height = _read_size(root, annotation.path)
    for line, (x0, y0, x1, y1) in annotation.boxes:
        if x1 > width or y1 > height:
            raise ValueError(
                f"{file}, line {line}: the box {x0:g},{y0:g},{x1:g},{y1:g} leaves its image, {width} x {height} pixels"
            )


def _fingerprint(root: Path, ids: Sequence[str], labels: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for path, label in zip(ids, labels, strict=True):
        try:
            status = (root / path).stat()
        except OSError as error:
            raise BrokenImageError(path, error.strerror or str(error)) from error
        digest.update(repr((path, status.st_size, status.st_mtime_ns, label)).encode())
    return digest.hexdigest()[:16]
