"""Batches of a training run: the same ones however many processes load them, and the time that it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from iir_fast.data import LocalizationDataset, SubgroupSampler
from iir_fast.training.features import CachedFeatures


class Batch(NamedTuple):
    """What one step is made of."""

    inputs: Tensor
    """Images [B,3,H,W], or shared maps [B,C,h,w] from a cache."""
    labels: Tensor
    """int64 [B]."""
    indices: list[int]
    """Which images of the data set."""
    seconds: float
    """How long one process took to load it."""


class BatchSource(Dataset[Batch]):
    """A data set in one epoch, a batch at a time.

    What a transform draws at random is decided by seed, epoch and image: neither the number of workers nor where an
    interrupted run went on changes an image.
    """

    def __init__(self, source: LocalizationDataset | CachedFeatures, seed: int, epoch: int) -> None:
        self.source, self.seed, self.epoch = source, seed, epoch

    def __getitems__(self, indices: list[int]) -> Batch:
        start = time.perf_counter()
        if isinstance(self.source, CachedFeatures):
            inputs, labels = self.source.__getitems__(indices)
        else:
            inputs, labels = default_collate([self._augmented(i) for i in indices])
        return Batch(inputs, labels, indices, time.perf_counter() - start)

    def _augmented(self, i: int) -> tuple[Tensor, int]:
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(int(np.random.SeedSequence((self.seed, self.epoch, i)).generate_state(1, np.uint64)[0]))
        try:
            return self.source[i]
        finally:
            generator.set_state(state)


def _as_it_is(batch: Any) -> Any:
    """`BatchSource` has collated already."""
    return batch


def load_epoch(
    source: LocalizationDataset | CachedFeatures,
    sampler: SubgroupSampler,
    *,
    seed: int,
    epoch: int,
    done: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The batches of one epoch.

    Args:
        source: images or cached features; the latter are read by this process.
        sampler: chooses the images.
        seed: of the transforms.
        epoch: its number.
        done: batches to leave out at the beginning, because an interrupted run has had them.
        workers: processes that load images; 0: this process.
        pin_memory: copy batches to memory from which a GPU reads faster.
    """
    sampler.set_epoch(epoch)
    loader: DataLoader[Any] = DataLoader(
        BatchSource(source, seed, epoch),
        batch_sampler=list(sampler)[done:],
        num_workers=0 if isinstance(source, CachedFeatures) else workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        # The loader draws a seed for its workers; from the global generator, resuming would draw it once more.
        generator=torch.Generator().manual_seed(epoch),
    )
    yield from loader
