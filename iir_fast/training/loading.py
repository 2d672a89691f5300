"""The data of a run: its splits, its batches, and the time that loading them took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from iir_fast.app.progress import log
from iir_fast.data import AugmentedDataset, LocalizationDataset, SubgroupSampler, Transform, open_split
from iir_fast.training.config import TrainConfig
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


def open_data(
    config: TrainConfig,
    split: str,
    transform: Transform,
    classes: Sequence[str] | None = None,
    data: str | None = None,
) -> LocalizationDataset:
    """Open a split of what a run is trained on, or of other data, as its configuration has images read.

    Args:
        config: of the run.
        split: name of the split.
        transform: makes the tensor of an RGB image.
        classes: class names of the training split, for other splits.
        data: a source as `open_split` takes it; None: that of the run.

    Raises:
        ValueError, OSError: as `open_split`.
    """
    images = config.images
    return open_split(
        data or config.data,
        split,
        transform,
        classes=classes,
        skip_broken=images.skip_broken,
        images=images.test_images if split == "test" else images.train_images,
        recipe=config.embedded,
        seed=config.seed,
        raw_orientation=images.raw_orientation,
    )


def make_sampler(config: TrainConfig, labels: Sequence[int], rank: int = 0, ranks: int = 1) -> SubgroupSampler:
    """Make what chooses the images of every batch; of fewer classes than a batch has, all of them are in each. Of fewer
    than two it raises a ValueError."""
    options, count = config.optimization, len(set(labels))
    if count < 2:
        text = "a localizer learns from what tells classes apart, two at least"
        raise ValueError(f"data are {config.data}, whose training images are of one class; {text}.")
    classes = min(options.classes_per_batch, count)
    if classes < options.classes_per_batch and rank == 0:
        log(f"classes_per_batch is {classes}, not {options.classes_per_batch}: there are no more classes.")
    updates = max(1, len(labels) // (classes * options.images_per_class * options.accumulate))
    batches = updates * options.accumulate
    return SubgroupSampler(labels, classes, options.images_per_class, config.seed, batches, rank, ranks)


def load_epoch(
    source: Source,
    sampler: SubgroupSampler,
    epoch: int,
    *,
    done: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Load the batches of one epoch, but for those at its beginning that an interrupted run has had, `done`.

    Images are loaded by so many `workers`, or by this process if 0, as cached features always are.
    """
    sampler.set_epoch(epoch)
    if isinstance(source, AugmentedDataset):
        source.set_epoch(epoch)
    loader: DataLoader[Any] = DataLoader(
        _BatchSource(source),
        batch_sampler=list(sampler)[done:],
        num_workers=0 if isinstance(source, CachedFeatures) else workers,
        collate_fn=CachedFeatures.collate,
        pin_memory=pin_memory,
        # Else the loader would draw from the global generator, once more in a run that is resumed.
        generator=torch.Generator(),
    )
    yield from loader
