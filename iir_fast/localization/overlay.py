"""Pictures of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from iir_fast.app.files import write_whole
from iir_fast.names import PICTURE_FORMATS

TRUE_COLOUR, PREDICTED_COLOUR = (40, 220, 90), (255, 60, 60)
OPACITY = 0.45
"""Of a score map over its image, unless told otherwise."""
SMALLEST_TEXT, TEXT_SHARE = 10, 24
"""Of the letters beside a box: their least height in pixels, and how many of them are as high as the picture."""


def overlay(
    image: Image.Image,
    scoremap: NDArray[np.float64] | None = None,
    boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]] = (),
    *,
    opacity: float = OPACITY,
    labels: Sequence[str] = (),
) -> Image.Image:
    """Draw the score map in colours over the image, and boxes on it.

    Args:
        image: RGB.
        scoremap: [h,w] in [0,1]; None: the image stays as it is.
        boxes: (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) with an RGB colour each.
        opacity: of the score map, in [0,1].
        labels: what to write beside each box, in Latin letters; none at all by default.

    Raises:
        ValueError: `opacity` is outside [0,1], or there are labels and not one for each box.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; a number in [0, 1] is accepted.")
    if labels and len(labels) != len(boxes):
        raise ValueError(f"labels has {len(labels)} entries for {len(boxes)} boxes; one for each is accepted, or none.")
    shown = image.convert("RGB")
    if scoremap is not None:
        grey = (np.clip(cv2.resize(scoremap, image.size, interpolation=cv2.INTER_LINEAR), 0, 1) * 255).astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
        shown = Image.blend(shown, Image.fromarray(heat), opacity)
    draw = ImageDraw.Draw(shown)
    for (x0, y0, x1, y1), colour in boxes:
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=max(1, min(image.size) // 100))
    if labels:
        font = ImageFont.load_default(max(SMALLEST_TEXT, min(image.size) // TEXT_SHARE))
        for text, (box, colour) in zip(labels, boxes, strict=True):
            _write(draw, shown.width, text, box, colour, font)
    return shown


def _write(
    draw: ImageDraw.ImageDraw,
    end: int,
    text: str,
    box: Sequence[float],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write above a box, or inside where there is no room, and not beyond the picture's `end`, its right."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0, min(box[0], end - width))
    y = box[1] - height if box[1] >= height else box[1]
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)


def shrink(image: Image.Image, size: int | None) -> Image.Image:
    """Bring an image's longest side to `size` pixels; None, or more than it has: the image as it is."""
    if size is not None and size < 1:
        raise ValueError(f"size is {size}; accepted is 1 or more.")
    longest = max(image.size)
    if size is None or size >= longest:
        return image
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def save_picture(file: Path, picture: Image.Image) -> None:
    """Write a picture, aside first and then in place: a link of that name is replaced, not followed.

    Args:
        file: ends in .png, .jpg or .webp.
        picture: RGB or grey.

    Raises:
        ValueError: `file` ends in something else.
        OSError: the file could not be written; what was there before still is.
    """
    form = file.suffix.lower().removeprefix(".")
    if form not in PICTURE_FORMATS:
        accepted = ", ".join(f".{each}" for each in PICTURE_FORMATS)
        raise ValueError(f"file is {file}; accepted are names that end in {accepted}.")
    write_whole(file, encode(picture, form))


def encode(picture: Image.Image, form: str) -> bytes:
    """Write a picture as the bytes of a file: "png", "jpg" or "webp"."""
    picture.save(content := BytesIO(), "JPEG" if form == "jpg" else form, quality=90)
    return content.getvalue()
