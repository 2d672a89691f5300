"""Pictures of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iir_fast.app.files import write_whole

TRUE_COLOUR, PREDICTED_COLOUR = (40, 220, 90), (255, 60, 60)


def overlay(
    image: Image.Image,
    scoremap: NDArray[np.float64] | None = None,
    boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]] = (),
) -> Image.Image:
    """Draw the score map in colours over the image, and boxes on it.

    Args:
        image: RGB.
        scoremap: [h,w] in [0,1]; None: the image stays as it is.
        boxes: (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) with an RGB colour each.
    """
    shown = image.convert("RGB")
    if scoremap is not None:
        grey = (np.clip(cv2.resize(scoremap, image.size, interpolation=cv2.INTER_LINEAR), 0, 1) * 255).astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
        shown = Image.blend(shown, Image.fromarray(heat), 0.45)
    draw = ImageDraw.Draw(shown)
    for (x0, y0, x1, y1), colour in boxes:
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=max(1, min(image.size) // 100))
    return shown


def save_picture(file: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, aside first and then in place: a link of that name is replaced, not followed.

    Raises:
        OSError: the file could not be written; what was there before still is.
    """
    picture.save(content := BytesIO(), "PNG")
    write_whole(file, content.getvalue())
