"""Backbone features of a whole data set, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from iir_fast.app.cache import cache_folder
from iir_fast.data import LocalizationDataset
from iir_fast.models import Backbone


def default_cache() -> Path:
    """Tell where features are kept unless told otherwise: `iir_fast/features` in the user's cache folder."""
    return cache_folder("features")


def cache_key(backbone: Backbone, image_size: int, dataset: LocalizationDataset) -> str:
    """Digest of all that decides the features: architecture, every weight, input size, the data's fingerprint."""
    digest = hashlib.sha256()
    digest.update(repr((backbone.name, backbone.stride, backbone.channels, backbone.mean, backbone.std)).encode())
    digest.update(repr((image_size, dataset.split, dataset.fingerprint)).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


class CachedFeatures(Dataset[tuple[Tensor, int]]):
    """Shared maps of a data set, read from a memory-mapped file.

    Item i is (features float32 [C,h,w], label). Iterating over whole batches reads each batch in one go
    (`__getitems__`, with `collate`).
    """

    def __init__(self, maps: NDArray[np.float32], labels: tuple[int, ...]) -> None:
        self.maps = maps
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.maps[i])), int(self.labels[i])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.maps[indices]), self.labels[indices]

    @staticmethod
    def collate(batch: Any) -> Any:
        """Pass on what `__getitems__` has collated already."""
        return batch


@torch.no_grad()
def cached_features(
    backbone: Backbone,
    dataset: LocalizationDataset,
    batches: Iterable[tuple[Tensor, Tensor]],
    image_size: int,
    folder: Path | None = None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> CachedFeatures:
    """Return the features of every image of a data set, from disk when they are there, computed and kept when not.

    Args:
        backbone: in eval mode.
        dataset: the images.
        batches: all its images in order, transformed, with labels; read only when the features are missing.
        image_size: side of the transformed images in pixels.
        folder: of the cache; None: `default_cache()`.
        on_batch: called with the number of images after each batch.
    """
    folder = folder or default_cache()
    file = folder / f"{cache_key(backbone, image_size, dataset)}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed: a file under its name is always whole, whoever else fills the same cache.
        aside = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            _fill(aside, backbone, len(dataset), batches, on_batch)
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)
    return CachedFeatures(np.load(file, mmap_mode="r"), dataset.labels)


def _fill(
    file: Path,
    backbone: Backbone,
    count: int,
    batches: Iterable[tuple[Tensor, Tensor]],
    on_batch: Callable[[int], None],
) -> None:
    device = next(backbone.parameters()).device
    maps, done = None, 0
    for images, _ in batches:
        features = backbone(images.to(device)).float().cpu().numpy()
        if maps is None:
            maps = open_memmap(file, mode="w+", dtype=np.float32, shape=(count, *features.shape[1:]))
        maps[done : done + len(features)] = features
        done += len(features)
        on_batch(len(features))
    if maps is None or done != count:
        raise RuntimeError(f"feature cache: {done} of {count} images were read.")
    maps.flush()
