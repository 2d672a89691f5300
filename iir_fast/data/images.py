"""Reading image files, wherever they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Image.init()
FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF") if name in Image.OPEN
)
"""What is opened, whatever a file's suffix says: Pillow's readers of other formats start programs or read other files.
AVIF is there from Pillow 11.3 on."""


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
    """Read an image file in mode RGB, at its size, EXIF orientation not applied.

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
    """Convert an image to mode RGB.

    Raises:
        ValueError: it has no 8-bit form.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode {image.mode} has more than 8 bits and would be clipped to white")
    return image.convert("RGB")


def read_size(root: ImageRoot, path: str) -> tuple[int, int]:
    """Read (width, height) from the header of an image file, or raise BrokenImageError."""
    with _opened(root, path) as image:
        return image.size


def read_mask(root: ImageRoot, path: str) -> NDArray[np.uint8]:
    """Read a mask, uint8 [height, width]: 1 where the file is not black; or raise BrokenImageError."""
    with _opened(root, path) as image:
        mask: NDArray[np.uint8] = (np.asarray(image.convert("L")) != 0).astype(np.uint8)
        return mask


def read_trimap(root: ImageRoot, path: str) -> NDArray[np.uint8]:
    """Read a trimap, uint8 [height, width]: 1 on the object, 2 on the background, 3 where it is not decided.

    Raises:
        BrokenImageError: the file is missing, unreadable, truncated or holds other values.
    """
    with _opened(root, path) as image:
        trimap = np.asarray(image)
        if trimap.ndim != 2 or not np.isin(trimap, (1, 2, 3)).all():
            raise ValueError("a trimap has one channel and the values 1, 2 and 3 only")
        return trimap.astype(np.uint8)


def read_stamp(root: ImageRoot, path: str) -> tuple[int, int]:
    """Read a file's size in bytes and time of modification in nanoseconds, or raise BrokenImageError."""
    try:
        status = (root / path).stat()
    except OSError as error:
        raise BrokenImageError(path, error.strerror or str(error)) from error
    return status.st_size, status.st_mtime_ns


@contextmanager
def _opened(root: ImageRoot, path: str) -> Iterator[Image.Image]:
    try:
        with (root / path).open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise BrokenImageError(path, f"cannot identify image file; accepted are {', '.join(FORMATS)}") from error
    # Pillow's decoders let through whatever their parsers meet: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        raise BrokenImageError(path, getattr(error, "strerror", None) or str(error)) from error
