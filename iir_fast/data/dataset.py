"""What every data set of the package offers: images, labels, ground truth, and a name for the features made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

Transform: TypeAlias = Callable[[Image.Image], Tensor]
"""From an RGB image to what the network reads, float32 [3,H,W]; `image_transform` makes one."""


@dataclass(frozen=True)
class GroundTruth:
    """What the evaluator knows of one image.

    Attributes:
        size: (width, height) of the original image; None where no file of the data set but the image itself states
            it, and neither boxes nor masks need it.
        boxes: float64 [n, 4] with x0, y0, x1, y1 as the data set states them, in the pixels of the original image;
            [0, 4] where it has none.
        masks: one uint8 array [h, w] per instance, non-zero on the object; empty where there are none. A mask covers
            the whole image, at the image's resolution or at its own: Open Images drew its masks at another one.
        ignore: uint8 [h, w], likewise, non-zero where pixels do not count; None where every pixel counts.
    """

    size: tuple[int, int] | None
    boxes: NDArray[np.float64]
    masks: tuple[NDArray[np.uint8], ...] = ()
    ignore: NDArray[np.uint8] | None = None


def box_around(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the box [1, 4] that just holds all that is not zero, x1 and y1 exclusive; [0, 4] where there is none."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    edges = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]] if len(columns) else []
    return np.array(edges, np.float64).reshape(-1, 4)


class LocalizationDataset(Dataset[tuple[Tensor, int]], ABC):
    """Images with one label each, and what is known of where their objects are.

    Attributes:
        classes: class names; a label is an index into them.
        labels: one label per image.
        ids: one name per image, unique within the data set, e.g. its relative path or ``test/00012``.
        split: name of the part of the data this is, e.g. ``train`` or ``test``.
        transform: makes the tensor of an RGB image; may be replaced at any time.
        skipped: names of the images that were left out because they cannot be read.
    """

    def __init__(
        self,
        *,
        classes: tuple[str, ...],
        labels: tuple[int, ...],
        ids: tuple[str, ...],
        split: str,
        transform: Transform,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.classes, self.labels, self.ids, self.split = classes, labels, ids, split
        self.transform, self.skipped = transform, skipped

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when an image or a label does; the key of a feature cache."""

    @abstractmethod
    def image(self, i: int) -> Image.Image:
        """Read image `i` in mode RGB and at its original size."""

    @abstractmethod
    def ground_truth(self, i: int) -> GroundTruth:
        """Read size, boxes and masks of image `i`."""

    def check(self) -> tuple[str, ...]:
        """Look for faults that would show later only, and say in sentences what is to be known of the split."""
        return ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Give image `i`, transformed, and its label."""
        return self.transform(self.image(i)), self.labels[i]
