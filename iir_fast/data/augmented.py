"""Random augmentation that anyone can repeat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iir_fast.data.dataset import LocalizationDataset


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
