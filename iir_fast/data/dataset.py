"""What every data set of the package offers: images, labels, ground truth, and a name for the features made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from iir_fast.data.ground_truth import GroundTruth

Transform: TypeAlias = Callable[[Image.Image], Tensor]
"""From an RGB image to what the network reads, float32 [3,H,W]; `image_transform` makes one."""


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
        self.classes = classes
        self.labels = labels
        self.ids = ids
        self.split = split
        self.transform = transform
        self.skipped = skipped

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when an image or a label does; the key of a feature cache."""

    @abstractmethod
    def image(self, i: int) -> Image.Image:
        """Image `i` in mode RGB and at its original size."""

    @abstractmethod
    def ground_truth(self, i: int) -> GroundTruth:
        """Size, boxes and masks of image `i`."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Transformed image `i` and its label."""
        return self.transform(self.image(i)), self.labels[i]
