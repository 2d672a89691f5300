"""What the evaluator measures on one image, apart from all the others."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iir_fast.data import GroundTruth
from iir_fast.evaluation.contours import score_contours
from iir_fast.evaluation.library import REFUSED, compiled
from iir_fast.evaluation.refinement import own_threshold
from iir_fast.evaluation.scoremaps import PROTOCOL_SIZE, check_scoremap


@dataclass(frozen=True)
class ScoredImage:
    """One image as the evaluator takes it.

    Attributes:
        image_id: name of the image in error messages; its path relative to the data root.
        scoremap: float64 [224, 224] in [0, 1], the map of the image's true class (`resize_scoremap` makes it).
        label: the true class.
        ranked_classes: integer [k], the classifier's k best classes, best first; None where nothing was classified.
        ground_truth: boxes and masks.
        own_threshold: tau in [0, 1) that no box has chosen, of this image alone; None: `own_threshold` of the map.
    """

    image_id: str
    scoremap: NDArray[np.float64]
    label: int
    ranked_classes: NDArray[np.int64] | None
    ground_truth: GroundTruth
    own_threshold: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What one image adds to the metrics; None where it has no boxes, no masks, or no ranked classes.

    Attributes:
        image_id: the image.
        largest_iou: float64 [T], per threshold the best IoU of the largest contour's box with any true box.
        best_iou: float64 [T], the same of any contour's box.
        own_iou: as `largest_iou`, at the image's own threshold.
        foreground: int64 [bins], histogram of the scores on the object.
        background: int64 [bins], histogram of the scores elsewhere.
        label_rank: how many classes were ranked above the true one, `ranked` if it is not among them.
        ranked: how many classes were ranked.
    """

    image_id: str
    largest_iou: NDArray[np.float64] | None
    best_iou: NDArray[np.float64] | None
    own_iou: float | None
    foreground: NDArray[np.int64] | None
    background: NDArray[np.int64] | None
    label_rank: int | None
    ranked: int


def measure(image: ScoredImage, taus: NDArray[np.float64], edges: NDArray[np.float64]) -> Measurement:
    """Measure one image: a pure function, so that images can be measured anywhere and in any order.

    Args:
        image: the image, its score map and its annotation.
        taus: float64 [T] in [0, 1), the thresholds for the boxes.
        edges: float64 [bins + 1], ascending from 0 to more than 1, the edges of the pixel histograms.

    Raises:
        ValueError: the score map or a mask is malformed; the message names the image.
    """
    check_scoremap(image.scoremap, f"the score map of image {image.image_id!r}")
    truth = image.ground_truth
    largest_iou = best_iou = own_iou = foreground = background = label_rank = None
    if len(truth.boxes):
        own = own_threshold(image.scoremap) if image.own_threshold is None else image.own_threshold
        boxes = scale_boxes(truth.boxes, truth.size)
        largest, best = score_contours(image.scoremap, np.append(taus, own), boxes)
        largest_iou, best_iou, own_iou = largest[:-1], best[:-1], float(largest[-1])
    if truth.masks:
        foreground, background = count_scores(image.scoremap, *scale_masks(truth, image.image_id), edges)
    ranked = [] if image.ranked_classes is None else image.ranked_classes.tolist()
    if image.ranked_classes is not None:
        label_rank = ranked.index(image.label) if image.label in ranked else len(ranked)
    pixels = foreground, background
    return Measurement(image.image_id, largest_iou, best_iou, own_iou, *pixels, label_rank, len(ranked))


def scale_boxes(boxes: NDArray[np.float64], size: tuple[int, int] | None) -> NDArray[np.int64]:
    """Bring true boxes to the protocol's size: int(coordinate * 224 / size).

    Args:
        boxes: float64 [n, 4], x0, y0, x1, y1 in the pixels of the image.
        size: (width, height) of the image, as `GroundTruth` has it; may be None where there is no box.

    Returns:
        int64 [n, 4], truncated towards zero.

    Raises:
        ValueError: there are boxes and `size` is None.
    """
    if size is None:
        if len(boxes):
            raise ValueError(f"size is None; (width, height) of the image is needed for its {len(boxes)} boxes.")
        return np.zeros((0, 4), np.int64)
    return (boxes * float(PROTOCOL_SIZE) / (size + size)).astype(np.int64)


def scale_masks(truth: GroundTruth, image_id: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bring an image's masks, each from its own resolution, to the protocol's size and join its instances.

    Returns:
        bool [224, 224] twice: the pixels on any instance, and the pixels on none that are not to be ignored.

    Raises:
        ValueError: a mask is not uint8 or has not two dimensions.
    """
    ignore = np.zeros((1, 1), np.uint8) if truth.ignore is None else truth.ignore
    scaled = []
    for mask in (*truth.masks, ignore):
        if mask.ndim != 2 or not mask.size or mask.dtype != np.uint8:
            found = f"{mask.dtype} {list(mask.shape)}"
            raise ValueError(f"a mask of image {image_id!r} is {found}; uint8 [height, width] is accepted.")
        scaled.append(cv2.resize(mask, (PROTOCOL_SIZE, PROTOCOL_SIZE), interpolation=cv2.INTER_NEAREST) > 0.5)
    on_object: NDArray[np.bool_] = np.any(scaled[:-1], axis=0)
    return on_object, ~on_object & ~scaled[-1]


def count_scores(
    scoremap: NDArray[np.float64],
    on_object: NDArray[np.bool_],
    elsewhere: NDArray[np.bool_],
    edges: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count what `np.histogram` counts under each of two masks.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        on_object: bool [H, W].
        elsewhere: bool [H, W], nowhere true where `on_object` is.
        edges: float64 [bins + 1], ascending from 0 to more than 1; a score belongs to the bin whose lower edge is the
            last that does not exceed it.

    Returns:
        int64 [bins] twice: the scores on the object and those elsewhere.

    Raises:
        ValueError: the shapes differ, or a score or an edge is out of its range.
    """
    if not scoremap.shape == on_object.shape == elsewhere.shape:
        shapes = f"{list(scoremap.shape)}, {list(on_object.shape)} and {list(elsewhere.shape)}"
        raise ValueError(f"scoremap and its two masks are {shapes}; one shape is accepted.")
    bins, library = len(edges) - 1, compiled()
    on_object, elsewhere = np.ascontiguousarray(on_object, np.bool_), np.ascontiguousarray(elsewhere, np.bool_)
    if library is None:
        indices = np.searchsorted(edges, scoremap, side="right") - 1
        return np.bincount(indices[on_object], minlength=bins), np.bincount(indices[elsewhere], minlength=bins)
    foreground, background = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    scoremap, edges = np.ascontiguousarray(scoremap, np.float64), np.ascontiguousarray(edges, np.float64)
    maps = (scoremap.ctypes.data, on_object.ctypes.data, elsewhere.ctypes.data)
    counts = (foreground.ctypes.data, background.ctypes.data)
    if (
        edges.ndim != 1
        or library.iir_fast_count_scores(*maps, scoremap.size, edges.ctypes.data, bins, *counts) == REFUSED
    ):
        raise ValueError("count_scores: scores in [0, 1] and two edges or more, ascending from 0, are accepted.")
    return foreground, background
