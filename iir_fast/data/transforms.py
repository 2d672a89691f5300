"""From a PIL image to the tensor a network reads, and random augmentation that anyone can repeat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from iir_fast.data.dataset import LocalizationDataset, Transform


def image_transform(
    size: int, mean: tuple[float, ...], std: tuple[float, ...], flip: bool = False, crop: bool = False
) -> Transform:
    """Resize, crop and flip if asked to, and normalize.

    The image is resized while it is still a PIL image: Pillow resamples in integers, so that every machine gets the
    same pixels. An image of the right size keeps its pixels.

    Args:
        size: side of the square result, in pixels; the aspect ratio is not kept, as the WSOL protocol has it.
        mean: what is subtracted from the channels, for values in [0, 1].
        std: what the channels are divided by afterwards.
        flip: mirror every second image left to right, chosen by torch's global random generator (for training).
        crop: resize to 8/7 of the size, 256 for 224, and cut a square out at random, by the same generator.

    Returns:
        A callable, picklable, from an RGB image to a float32 tensor [3, size, size].

    Raises:
        ValueError: `size` is below 1 or `std` has an entry that is not positive.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive in every channel, got {std}")
    resized = round(size * 8 / 7) if crop else size
    steps = [
        v2.Resize((resized, resized), antialias=True),
        *([v2.RandomCrop(size)] if crop else []),
        *([v2.RandomHorizontalFlip()] if flip else []),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std)),
    ]
    transform: Transform = v2.Compose(steps)
    return transform


class AugmentedDataset(Dataset[tuple[Tensor, int]]):
    """A data set whose transform draws from torch's global generator, made to depend on three numbers alone.

    Item `i` is the same for the same seed, epoch and `i`: with any number of loading processes, in any order, and in a
    run that was resumed in the middle of an epoch. The state of the global generator is left as it was.

    Args:
        dataset: the images with their random transform.
        seed: not negative.
    """

    def __init__(self, dataset: LocalizationDataset, seed: int) -> None:
        self.labels = dataset.labels
        self._dataset = dataset
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (not negative) that items are drawn for."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        (seed,) = np.random.SeedSequence((self._seed, self._epoch, i)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            return self._dataset[i]
