"""What a box is drawn around: contours of a score map in the pixels of the image, as polygons and as masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation import PROTOCOL_SIZE, outer_contours

SMALLEST = 0.1
"""A contour is an object of its own from this share of the largest one's area on."""


class Outline(NamedTuple):
    """One contour of a score map in the pixels of its image."""

    box: tuple[int, int, int, int]
    """x0, y0, x1, y1, x1 and y1 exclusive; all 0 where nothing exceeds the threshold."""
    polygon: NDArray[np.float64]
    """[n, 2], its corners x, y, as the box has them: 0, 0 is the corner of the first pixel. Holes are part of it."""


def scale_box(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Bring a box of the protocol's 224x224 score map to pixels of an image, x1 and y1 exclusive.

    The protocol clips x1 and y1 at 223, so that is where the image ends.

    Args:
        box: x0, y0, x1, y1, as `iir_fast.evaluation.largest_box` finds it.
        size: width and height of the image in pixels.
    """
    edge = PROTOCOL_SIZE - 1
    (width, height), (x0, y0, x1, y1) = size, box
    return (
        round(x0 * width / PROTOCOL_SIZE),
        round(y0 * height / PROTOCOL_SIZE),
        width if x1 >= edge else round(x1 * width / PROTOCOL_SIZE),
        height if y1 >= edge else round(y1 * height / PROTOCOL_SIZE),
    )


NOWHERE = Outline((0, 0, 0, 0), np.zeros((0, 2)))
"""Of what is not there."""


def find_outlines(
    scoremap: NDArray[np.float64], threshold: float, size: tuple[int, int], most: int = 1
) -> list[Outline]:
    """Find the largest contours of a score map [224,224], those of at least a tenth of the largest one's area.

    Of an image of that width and height there are one to `most`, the largest first, whose box is the protocol's; one
    without area where the map is constant. A polygon is the contour through the map's pixel centres, stretched to its
    box.
    """
    contours = outer_contours(scoremap, threshold)[:most]
    areas = [cv2.contourArea(contour) for contour in contours]
    kept = [contour for contour, area in zip(contours, areas, strict=True) if area >= SMALLEST * areas[0]]
    return [_outline(contour, size) for contour in kept] or [NOWHERE]


def corners(box: Sequence[int]) -> NDArray[np.float64]:
    """Make a polygon [4, 2] of a box."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def fill(outline: Outline, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill an outline: uint8 [height, width], 1 on the object, nowhere outside its box."""
    x0, y0, x1, y1 = outline.box
    mask = np.zeros((size[1], size[0]), np.uint8)
    if x0 < x1 and y0 < y1:
        # OpenCV counts from pixel centres, in sixteenths here, and fills what the border touches, too.
        points = np.rint((outline.polygon - (x0 + 0.5, y0 + 0.5)) * 16).astype(np.int32)
        inside = np.zeros((y1 - y0, x1 - x0), np.uint8)
        mask[y0:y1, x0:x1] = cv2.fillPoly(inside, [points], 1, shift=4)
    return mask


def _outline(contour: NDArray[np.int32], size: tuple[int, int]) -> Outline:
    edge = PROTOCOL_SIZE - 1
    x, y, width, height = cv2.boundingRect(contour)
    box = scale_box((x, y, min(x + width, edge), min(y + height, edge)), size)
    if cv2.contourArea(contour) == 0:  # a point or a line
        return Outline(box, corners(box))
    low, high = np.array(box[:2]), np.array(box[2:])
    return Outline(box, low + (contour - (x, y)) / (width - 1, height - 1) * (high - low))
