"""What the evaluator knows of one image: its size, its boxes, its masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GroundTruth:
    """Annotation of one image.

    Attributes:
        size: (width, height) of the original image.
        boxes: float64 [n, 4] with x0, y0, x1, y1 as the data set states them, in the pixels of the original image;
            [0, 4] where it has none.
        masks: one uint8 array [h, w] per instance, non-zero on the object; empty where there are none. A mask covers
            the whole image, at the image's resolution or at its own: Open Images drew its masks at another one.
        ignore: uint8 [h, w], likewise, non-zero where pixels do not count; None where every pixel counts.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    masks: tuple[NDArray[np.uint8], ...] = ()
    ignore: NDArray[np.uint8] | None = None
