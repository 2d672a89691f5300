"""Image files: reading them, and going through many of them at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from iir_fast.app.progress import console

Item = TypeVar("Item")
Result = TypeVar("Result")

PROGRESS_FROM = 2000
"""Images; fewer are gone through before a progress bar would be of use."""


class ImageFile(Protocol):
    """What can be opened and has a size and a time of modification, as a `Path` does."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...

    def stat(self) -> os.stat_result: ...


class ImageRoot(Protocol):
    """What paths of images lead on from: a folder, or shards that are read like one."""

    def __truediv__(self, path: str, /) -> ImageFile: ...


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


def read_image(file: str | Path, root: ImageRoot = Path()) -> Image.Image:
    """An image file in mode RGB, at its size, EXIF orientation not applied.

    Args:
        file: its path, relative to `root`.
        root: of the data set; error messages leave it out.

    Returns:
        The decoded image, which no longer needs its file.

    Raises:
        BrokenImageError: it is missing, unreadable, truncated, or has no 8-bit form; the message names it.
    """
    with _opened(root, str(file)) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in mode RGB.

    Raises:
        ValueError: it has no 8-bit form.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode {image.mode} has more than 8 bits and would be clipped to white")
    return image.convert("RGB")


def read_size(root: ImageRoot, path: str) -> tuple[int, int]:
    """(width, height) as the header of an image file states them.

    Raises:
        BrokenImageError: the file is missing or has no readable header.
    """
    with _opened(root, path) as image:
        return image.size


def read_mask(root: ImageRoot, path: str) -> NDArray[np.uint8]:
    """A mask, uint8 [height, width]: 1 where the file is not black.

    Raises:
        BrokenImageError: the file is missing, unreadable or truncated.
    """
    with _opened(root, path) as image:
        mask: NDArray[np.uint8] = (np.asarray(image.convert("L")) != 0).astype(np.uint8)
        return mask


def read_trimap(root: ImageRoot, path: str) -> NDArray[np.uint8]:
    """A trimap, uint8 [height, width]: 1 on the object, 2 on the background, 3 where it is not decided.

    Raises:
        BrokenImageError: the file is missing, unreadable, truncated or holds other values.
    """
    with _opened(root, path) as image:
        trimap = np.asarray(image)
        if trimap.ndim != 2 or not np.isin(trimap, (1, 2, 3)).all():
            raise ValueError("a trimap has one channel and the values 1, 2 and 3 only")
        return trimap.astype(np.uint8)


def fingerprint(root: ImageRoot, ids: Sequence[str], labels: Sequence[int]) -> str:
    """16 hexadecimal digits of all paths, file sizes, times of modification and labels.

    Raises:
        BrokenImageError: a file is missing.
    """
    digest = hashlib.sha256()
    stamps = in_threads(partial(_stamp, root), ids, "Looking up images")
    for path, (size, modified), label in zip(ids, stamps, labels, strict=True):
        digest.update(repr((path, size, modified, label)).encode())
    return digest.hexdigest()[:16]


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str, progress_from: int = PROGRESS_FROM
) -> list[Result]:
    """A function of every item, in order, with a progress bar from so many items on. Pillow decodes without the GIL."""
    with ThreadPool() as pool:
        results = track(
            pool.imap(function, items, chunksize=16 if len(items) >= PROGRESS_FROM else 1),
            description=description,
            total=len(items),
            console=console,
            transient=True,
            disable=len(items) < progress_from,
        )
        return list(results)


@contextmanager
def _opened(root: ImageRoot, path: str) -> Iterator[Image.Image]:
    try:
        with (root / path).open("rb") as stream, Image.open(stream) as image:
            yield image
    except UnidentifiedImageError as error:
        raise BrokenImageError(path, "cannot identify image file") from error
    # Pillow's decoders let through whatever their parsers meet: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        raise BrokenImageError(path, getattr(error, "strerror", None) or str(error)) from error


def _stamp(root: ImageRoot, path: str) -> tuple[int, int]:
    try:
        status = (root / path).stat()
    except OSError as error:
        raise BrokenImageError(path, error.strerror or str(error)) from error
    return status.st_size, status.st_mtime_ns
