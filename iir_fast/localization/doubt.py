"""How much speaks against a box that nothing true is there to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation import own_threshold
from iir_fast.evaluation.boxes import box_iou, largest_box

LEVELS = (0.3, 0.4, 0.5, 0.6)
"""Constant thresholds that a box is compared at."""


@dataclass(frozen=True)
class Doubt:
    """What there is to doubt of a box. The formula is ours; `docs/howto/own_images.md` says on what it was chosen.

    Attributes:
        agreement: mean IoU with the boxes of the image's two other maps, each cut at its own threshold.
        stability: mean IoU with the boxes of the map itself at the four `LEVELS` of its maximum.
        probability: of the class.
    """

    agreement: float
    stability: float
    probability: float

    @property
    def value(self) -> float:
        """In [0,1]: 1 - the mean of the six IoUs and the probability."""
        return 1 - (2 * self.agreement + len(LEVELS) * self.stability + self.probability) / (len(LEVELS) + 3)


def weigh(
    cut: NDArray[np.float64],
    threshold: float,
    scoremap: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]],
    probability: float,
) -> Doubt:
    """Weigh the box that was cut out of a map at a threshold against boxes that the same network might have given.

    These are of `scoremap`, the same map before it was refined, and of the two `others` of the image and class, not
    refined. A constant map, which has no box, agrees with nothing.
    """
    if cut.min() == cut.max():
        return Doubt(0.0, 0.0, probability)
    box = np.array([largest_box(cut, threshold)])
    elsewhere = np.array([largest_box(each, own_threshold(each)) for each in others])
    at_levels = np.array([largest_box(scoremap, level) for level in LEVELS])
    agreement, stability = (float(box_iou(box, each).mean()) for each in (elsewhere, at_levels))
    return Doubt(agreement, stability, probability)
