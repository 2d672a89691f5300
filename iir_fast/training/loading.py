"""Batches of a training run, and the time that loading them took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from iir_fast.data import AugmentedDataset, LocalizationDataset, SubgroupSampler
from iir_fast.training.features import CachedFeatures

Source: TypeAlias = LocalizationDataset | AugmentedDataset | CachedFeatures
"""What training reads."""


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


class _BatchSource(Dataset[Batch]):
    """A data set, a batch at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitems__(self, indices: list[int]) -> Batch:
        start = time.perf_counter()
        if isinstance(self._source, CachedFeatures):
            inputs, labels = self._source.__getitems__(indices)
        else:
            inputs, labels = default_collate([self._source[i] for i in indices])
        return Batch(inputs, labels, indices, time.perf_counter() - start)


def _as_it_is(batch: Any) -> Any:
    """Pass on what `_BatchSource` has collated already."""
    return batch


def load_epoch(
    source: Source,
    sampler: SubgroupSampler,
    epoch: int,
    *,
    done: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Load the batches of one epoch.

    Args:
        source: images or cached features; the latter are read by this process.
        sampler: chooses the images.
        epoch: its number.
        done: batches to leave out at the beginning, because an interrupted run has had them.
        workers: processes that load images; 0: this process.
        pin_memory: copy batches to memory from which a GPU reads faster.
    """
    sampler.set_epoch(epoch)
    if isinstance(source, AugmentedDataset):
        source.set_epoch(epoch)
    loader: DataLoader[Any] = DataLoader(
        _BatchSource(source),
        batch_sampler=list(sampler)[done:],
        num_workers=0 if isinstance(source, CachedFeatures) else workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        # Else the loader would draw from the global generator, once more in a run that is resumed.
        generator=torch.Generator(),
    )
    yield from loader
