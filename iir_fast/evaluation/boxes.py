"""From a score map to the boxes of its contours, at every threshold of the protocol."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation.scoremaps import check_scores

_FURTHEST = 2**30
"""Edges of boxes are below, so that areas fit into 64 bits."""


def thresholds(step: float) -> NDArray[np.float64]:
    """List the relative thresholds tau that a score map is cut at, float64 [T]: 0, step, 2 step, ... below 1.

    Args:
        step: distance of two thresholds; the protocol's training runs use 0.001, its stand-alone evaluator 0.01.

    Raises:
        ValueError: `step` is outside (0, 1].
    """
    if not 0 < step <= 1:
        raise ValueError(f"step is {step}; a number in (0, 1] is accepted.")
    return np.arange(0, 1, step)


def contour_boxes(image: NDArray[np.uint8], cut: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """Find the boxes of an 8-bit map that is cut strictly above a level, and the number of the largest contour's.

    Every contour, those of holes included, gives its bounding rectangle x, y, w, h as the box
    x, y, min(x + w, width - 1), min(y + h, height - 1); where nothing exceeds the level there is the box 0, 0, 0, 0
    alone. The area that decides which contour is the largest is that of the polygon through its pixel centres; the
    first contour wins a tie.
    """
    height, width = image.shape
    contours = _contours(image, cut, cv2.RETR_TREE)
    areas = [cv2.contourArea(contour) for contour in contours] or [0.0]
    rectangles = map(cv2.boundingRect, contours)
    boxes = [(x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in rectangles]
    return boxes or [(0, 0, 0, 0)], areas.index(max(areas))


def largest_box(scoremap: NDArray[np.float64], threshold: float) -> tuple[int, int, int, int]:
    """Find the bounding box of a score map's largest contour at one threshold.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        threshold: tau in [0, 1), relative to the map's maximum.

    Returns:
        x0, y0, x1, y1 in the map's pixels; 0, 0, 0, 0 where nothing exceeds the threshold (a map of zeros).

    Raises:
        ValueError: the map is another array, leaves [0, 1] or holds NaN, or `threshold` is outside [0, 1).
    """
    boxes, largest = contour_boxes(*_grey(scoremap, threshold))
    return boxes[largest]


def outer_contours(scoremap: NDArray[np.float64], threshold: float) -> list[NDArray[np.int32]]:
    """Find what a score map falls into at one threshold: its outermost contours, the largest area first.

    Args:
        scoremap, threshold: as `largest_box` takes them.

    Returns:
        int32 [n, 2] each: the corners x, y of the polygon through the pixel centres. The first one's box is
        `largest_box`.

    Raises:
        ValueError: as `largest_box`.
    """
    contours = _contours(*_grey(scoremap, threshold), cv2.RETR_EXTERNAL)
    return sorted((contour[:, 0] for contour in contours), key=cv2.contourArea, reverse=True)


def _grey(scoremap: NDArray[np.float64], threshold: float) -> tuple[NDArray[np.uint8], int]:
    """Make an 8-bit map of a score map, floor(255 map), and the level of a threshold, int(tau max(image))."""
    check_scores(scoremap, "scoremap")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; a number in [0, 1) is accepted.")
    image = (scoremap * 255).astype(np.uint8)
    return image, int(threshold * image.max())


def _contours(image: NDArray[np.uint8], cut: int, which: int) -> Sequence[NDArray[np.int32]]:
    """Cut an 8-bit map at a level: its contours, int32 [n, 1, 2]."""
    _, binary = cv2.threshold(image, float(cut), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, which, cv2.CHAIN_APPROX_SIMPLE)
    return contours  # type: ignore[return-value]


def check_boxes(boxes: NDArray[np.int64], name: str) -> None:
    """Raise ValueError, under that name, unless boxes are an integer array [n, 4] with edges in order and in range."""
    if not isinstance(boxes, np.ndarray) or boxes.dtype.kind not in "iu" or boxes.shape[1:] != (4,) or not len(boxes):
        found = f"{boxes.dtype} {list(boxes.shape)}" if isinstance(boxes, np.ndarray) else f"a {type(boxes).__name__}"
        raise ValueError(f"{name} is {found}; an integer array [n, 4] with n >= 1 is accepted.")
    low, high = boxes[:, :2], boxes[:, 2:]
    wrong = (low < 0).any(axis=1) | (high < low).any(axis=1) | (high >= _FURTHEST).any(axis=1)
    if wrong.any():
        first = boxes[wrong][0].tolist()
        raise ValueError(f"{name} holds {first}; 0 <= x0 <= x1 < 2**30 and 0 <= y0 <= y1 < 2**30 are accepted.")


def box_iou(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compare boxes int64 [n, 4] with others [m, 4]: intersection over union, float64 [n, m].

    The corner pixels x0, y0 and x1, y1 both belong to a box: a side is x1 - x0 + 1 long.
    """
    shared = _shared(first, second)
    iou: NDArray[np.float64] = shared / (_area(first)[:, None] + _area(second) - shared)
    return iou


def shares(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell how much of boxes int64 [n, 4] lies in others [m, 4], and the other way round, each float64 [n, m]."""
    shared = _shared(first, second)
    return shared / _area(first)[:, None], shared / _area(second)


def _shared(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection: NDArray[np.int64] = np.maximum(high - low + 1, 0).prod(axis=2)
    return intersection


def _area(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    area: NDArray[np.int64] = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    return area
