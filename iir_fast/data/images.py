"""Reading image files, wherever they are."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from iir_fast.app.files import in_short

with suppress(ModuleNotFoundError):
    from pillow_heif import register_heif_opener

    register_heif_opener()

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""The formats that are read, by Pillow's names, and the suffixes of their files. A Pillow may lack the last two."""
BACKGROUND = "white"
"""What images with transparency are laid on."""
LARGEST = "IIR_FAST_MAX_MEGAPIXELS"
"""Environment variable: the most megapixels of an image, in place of Pillow's limit of 179. A small file may unfold to
an image that fills the memory."""

Image.init()
OPENED = tuple(name for name in FORMATS if name in Image.OPEN)
"""What is opened, whatever the suffix: Pillow's readers of other formats start programs or read other files."""


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


def read_image(file: str | Path, root: ImageRoot = Path(), *, upright: bool = True) -> Image.Image:
    """Read an image file in mode RGB, at its size; of several frames the first.

    Args:
        file: its path, relative to `root`.
        root: of the data set; error messages leave it out.
        upright: apply the EXIF orientation, as every viewer does; False: take the pixels as they are stored. TIFFs are
            always upright: Pillow applies theirs itself.

    Returns:
        The decoded image, which no longer needs its file.

    Raises:
        BrokenImageError: it is missing, unreadable, truncated, or has no 8-bit form; the message names it.
    """
    with _opened(root, str(file)) as image:
        return _turned_upright(image, to_rgb(image)) if upright else to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to mode RGB, laid on white where it has transparency: hidden colours do not matter.

    Raises:
        ValueError: it has no 8-bit form.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode {image.mode} has more than 8 bits and would be clipped to white")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


class Header(NamedTuple):
    """What an image file says of itself before its pixels are looked at."""

    size: tuple[int, int]
    """(width, height), of the upright image if that was asked for."""
    is_turned: bool
    """Whether an EXIF orientation is applied to it."""


def read_header(root: ImageRoot, path: str, upright: bool) -> Header:
    """Read the header of an image file, or raise BrokenImageError; `upright` as in `read_image`."""
    with _opened(root, path) as image:
        if not upright:
            return Header(image.size, False)
        orientation = _orientation(image)
        if image.format == "TIFF":
            image.load()  # turns it
        elif orientation >= 5:
            return Header((image.height, image.width), True)
        return Header(image.size, orientation > 1)


def read_mask(root: ImageRoot, path: str, upright: bool) -> NDArray[np.uint8]:
    """Read a mask, uint8 [height, width], or raise BrokenImageError; `upright` as in `read_image`.

    It is 1 where the file is not transparent, or where nothing in it is transparent, where it is not black.
    """
    with _opened(root, path) as image:
        if image.mode.startswith(("I", "F")):  # more than 8 bits, in one channel
            on_object = image
        else:
            # Not by way of grey, which rounds dark colours to black.
            alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
            on_object = image.convert("RGB") if alpha is None or alpha.getextrema() == (255, 255) else alpha
        pixels = np.asarray(_turned_upright(image, on_object) if upright else on_object) != 0
        mask: NDArray[np.uint8] = (pixels.any(axis=2) if pixels.ndim == 3 else pixels).astype(np.uint8)
        return mask


def read_trimap(root: ImageRoot, path: str) -> NDArray[np.uint8]:
    """Read a trimap, uint8 [height, width], or raise BrokenImageError.

    It is 1 on the object, 2 on the background, 3 where it is not decided.
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


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; a PNG is decoded for it, as it may stand at the end."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error):
        return 1  # EXIF that cannot be read says nothing; the pixels may be sound
    return int(orientation) if orientation in range(1, 9) else 1


def _turned_upright(image: Image.Image, decoded: Image.Image) -> Image.Image:
    """Turn what was decoded from an image file as that file's EXIF says."""
    orientation = _orientation(image)
    if orientation > 1:
        # All but the orientation is left out: Pillow would write it anew, and may fail.
        decoded.info = {}
        decoded.getexif()[ExifTags.Base.Orientation] = orientation
        decoded = ImageOps.exif_transpose(decoded)
    return decoded


def _limit() -> int | None:
    given = os.environ.get(LARGEST)
    try:
        limit = None if given is None else int(float(given) * 1e6)
    except (ValueError, OverflowError):
        limit = 0
    if limit is not None and limit < 1:
        raise ValueError(f"{LARGEST} is {given!r}; a number above 0 is accepted")
    return limit


@contextmanager
def _opened(root: ImageRoot, path: str) -> Iterator[Image.Image]:
    try:
        limit = _limit()
        if limit is not None:
            Image.MAX_IMAGE_PIXELS = limit  # Pillow warns above it, and refuses above twice as many
        file = root / path
        # Asked before it is opened, which would wait at a pipe.
        if not S_ISREG(file.stat().st_mode):
            raise ValueError("it is not a regular file")
        with file.open("rb") as stream, Image.open(stream, formats=OPENED) as image:
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {limit:,}")
            yield image
    except Image.DecompressionBombError as error:
        reason = f"{str(error).rstrip('.')}; make it smaller, or set {LARGEST} to the megapixels that are let through"
        raise BrokenImageError(path, reason) from error
    except UnidentifiedImageError as error:
        raise BrokenImageError(path, f"cannot identify image file; accepted are {', '.join(OPENED)}") from error
    # Pillow's decoders let through whatever their parsers meet: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        raise BrokenImageError(path, getattr(error, "strerror", None) or in_short(error)) from error
