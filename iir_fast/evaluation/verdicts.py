"""What becomes of each image at one threshold: right, or which kind of error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation.boxes import box_iou, check_boxes, largest_box, shares
from iir_fast.evaluation.measurement import ScoredImage, scale_boxes
from iir_fast.evaluation.metrics import V1_DELTA

ErrorKind: TypeAlias = Literal["none", "class", "several instances", "part", "too large", "wrong place"]
"""Kinds of error, in the order in which they are looked for, but for "none"."""
ERRORS: tuple[ErrorKind, ...] = get_args(ErrorKind)

SEVERAL, PART, TOO_LARGE = 0.3, 0.5, 0.7
"""Shares of boxes from which on a box holds an instance, lies in one, and holds one whole; see `error_kind`."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of one image.

    Attributes:
        image_id: its name.
        label: the true class.
        predicted: the class that was ranked first; None where nothing was classified.
        iou: of the largest contour's box with the true box that it fits best; None where there is no true box.
        threshold: the tau of the box; None as `iou`.
        error: as `error_kind` has it; None as `iou`.
    """

    image_id: str
    label: int
    predicted: int | None
    iou: float | None = None
    threshold: float | None = None
    error: ErrorKind | None = None

    @property
    def is_classified(self) -> bool:
        """Whether the true class was ranked first."""
        return self.predicted == self.label

    @property
    def is_localized(self) -> bool:
        """Whether the box is right, GT-known: its IoU is 0.5 or more."""
        return self.iou is not None and self.iou >= V1_DELTA


def judge(image: ScoredImage, threshold: float | None) -> Verdict:
    """Judge one image at one threshold, as GT-known and Top-1 localization do.

    Args:
        image: the image, its score map and its annotation.
        threshold: tau in [0, 1); None: boxes are not asked for.

    Raises:
        ValueError: the score map is malformed, or `threshold` is outside [0, 1).
    """
    ranked, truth = image.ranked_classes, image.ground_truth
    predicted = None if ranked is None or not len(ranked) else int(ranked[0])
    verdict = Verdict(image.image_id, image.label, predicted)
    if threshold is None or not len(truth.boxes):
        return verdict
    box, true = np.array([largest_box(image.scoremap, threshold)]), scale_boxes(truth.boxes, truth.size)
    error = error_kind(box, true, is_class_right=predicted is None or verdict.is_classified)
    iou = float(box_iou(box, true).max())
    return Verdict(image.image_id, image.label, predicted, iou, threshold, error)


def error_kind(box: NDArray[np.int64], true: NDArray[np.int64], is_class_right: bool = True) -> ErrorKind:
    """Name what is wrong with a box: the first of these that holds.

    The rule is that of the code of Pan et al., "Unveiling the Potential of Structure Preserving for Weakly Supervised
    Object Localization" (CVPR 2021), but for an IoU of exactly 0.5, which is right here as it is for MaxBoxAcc.

    - "class": the class is wrong.
    - "none": the IoU with a true box is 0.5 or more.
    - "several instances": of each of two true boxes or more, over 0.3 of the area lie in the box.
    - "part": over 0.5 of the box lie in the true box that it fits best.
    - "too large": 0.7 or more of that true box lie in the box.
    - "wrong place": anything else.

    Args:
        box: int64 [1, 4], x0, y0, x1, y1; both corner pixels belong to it.
        true: int64 [n, 4], n >= 1 true boxes.
        is_class_right: whether the right class was named, or none.

    Raises:
        ValueError: boxes are other arrays, or their edges out of order.
    """
    check_boxes(box, "box")
    check_boxes(true, "true")
    iou = box_iou(box, true)[0]
    of_box, of_true = shares(box, true)
    best = int(iou.argmax())
    if not is_class_right:
        return "class"
    if iou[best] >= V1_DELTA:
        return "none"
    if (of_true[0] > SEVERAL).sum() > 1:
        return "several instances"
    if of_box[0, best] > PART:
        return "part"
    return "too large" if of_true[0, best] >= TOO_LARGE else "wrong place"


def error_shares(verdicts: Iterable[Verdict]) -> dict[str, float] | None:
    """Count the kinds of error, in percent of the images with boxes; None where there are none."""
    counts = Counter(each.error for each in verdicts if each.error is not None)
    return {error: counts[error] * 100.0 / counts.total() for error in ERRORS} if counts else None
