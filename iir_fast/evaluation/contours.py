"""How well the boxes of a score map fit, at every threshold of the protocol, in one pass over its grey levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation.boxes import box_iou, check_boxes, contour_boxes
from iir_fast.evaluation.library import REFUSED, compiled
from iir_fast.evaluation.scoremaps import check_scores

_LEVELS = 256


def score_contours(
    scoremap: NDArray[np.float64], taus: NDArray[np.float64], boxes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare a score map's boxes with the true ones at every threshold; the boxes are those of `contour_boxes`.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        taus: float64 [T] in [0, 1), in any order.
        boxes: int64 [n, 4], x0, y0, x1, y1 of n >= 1 true boxes in the map's pixels.

    Returns:
        float64 [T] twice: the best IoU of the largest contour's box with any true box, and that of any contour's.

    Raises:
        ValueError: an array has another shape or dtype, a value is out of its range or NaN, edges of a box are out of
            order or from 2**30 up, or the map has more than 2**28 pixels.
    """
    check_scores(scoremap, "scoremap")
    _check_taus(taus)
    check_boxes(boxes, "boxes")
    library = compiled()
    if library is None:
        return search_contours(scoremap, taus, boxes)
    scoremap = np.ascontiguousarray(scoremap, dtype=np.float64)
    boxes = np.ascontiguousarray(boxes, dtype=np.int64)
    largest, best = np.empty(_LEVELS), np.empty(_LEVELS)
    highest = library.iir_fast_score_contours(
        scoremap.ctypes.data, *scoremap.shape, boxes.ctypes.data, len(boxes), largest.ctypes.data, best.ctypes.data
    )
    if highest == REFUSED:
        raise ValueError(f"scoremap is {list(scoremap.shape)}; fewer than 2**28 pixels are accepted.")
    if highest < 0:
        raise MemoryError(f"score_contours: no memory for a map of {scoremap.shape[0]} x {scoremap.shape[1]} pixels.")
    level = (taus * highest).astype(np.int64)
    return largest[level], best[level]


def _check_taus(taus: NDArray[np.float64]) -> None:
    if not isinstance(taus, np.ndarray) or taus.dtype.kind != "f" or taus.ndim != 1:
        found = f"{taus.dtype} {list(taus.shape)}" if isinstance(taus, np.ndarray) else f"a {type(taus).__name__}"
        raise ValueError(f"taus is {found}; a floating array [T] is accepted.")
    if taus.size and not (taus.min() >= 0 and taus.max() < 1):
        raise ValueError(f"taus holds values from {taus.min()} to {taus.max()}; values in [0, 1) are accepted.")


def search_contours(
    scoremap: NDArray[np.float64], taus: NDArray[np.float64], boxes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do what `score_contours` does by OpenCV's search for contours, at every distinct cut: at most 255."""
    image = (scoremap * 255).astype(np.uint8)
    cuts, level = np.unique((taus * image.max()).astype(np.int64), return_inverse=True)
    found: list[tuple[int, int, int, int]] = []
    starts, largest = [], []
    for cut in cuts.tolist():
        of_cut, first = contour_boxes(image, cut)
        starts.append(len(found))
        largest.append(len(found) + first)
        found += of_cut
    iou = box_iou(np.array(found), boxes).max(axis=1)
    return iou[largest][level], np.maximum.reduceat(iou, starts)[level]
