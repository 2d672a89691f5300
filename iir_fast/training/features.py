"""Backbone features of a whole data set, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from iir_fast.app.cache import cache_folder
from iir_fast.app.files import FULL, in_short, remove_leftovers, set_aside, whole_file
from iir_fast.data import LocalizationDataset
from iir_fast.models import Backbone


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

    The backbone is in eval mode. `batches` are all images in order, transformed, with labels: they are read only where
    features are missing, and `on_batch` hears how many images each had. Without a `folder` it is the user's cache.
    Where there is no room for them, an OSError is raised.
    """
    folder = folder or cache_folder("features")
    file = folder / f"{cache_key(backbone, image_size, dataset)}.npy"
    maps = _kept(file, len(dataset))
    if maps is None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with whole_file(file) as aside:
            _fill(aside, backbone, len(dataset), batches, on_batch)
        maps = np.load(file, mmap_mode="r")
    return CachedFeatures(maps, dataset.labels)


def _kept(file: Path, count: int) -> NDArray[np.float32] | None:
    """Open the features in a file; None where there are none. A damaged file is set aside and said so."""
    if not file.is_file():
        return None
    try:
        maps: NDArray[np.float32] = np.load(file, mmap_mode="r")
        if maps.dtype != np.float32 or maps.ndim != 4 or len(maps) != count:
            raise ValueError(f"it is {maps.dtype} {list(maps.shape)}, not float32 maps of {count} images")
        return maps
    except Exception as error:  # numpy's parser lets through whatever it meets: EOFError, TokenError, OverflowError ...
        set_aside(file, f"feature cache {file} is damaged: {in_short(error)}")
        return None


def _fill(
    file: Path,
    backbone: Backbone,
    count: int,
    batches: Iterable[tuple[Tensor, Tensor]],
    on_batch: Callable[[int], None],
) -> None:
    device = next(backbone.parameters()).device
    done = 0
    with file.open("wb") as stream:
        for images, _ in batches:
            features = np.ascontiguousarray(backbone(images.to(device)).float().cpu().numpy())
            if not done:
                _begin(stream, (count, *features.shape[1:]), file.parent)
            # Not through a mapping, where a disk that is full kills the process.
            stream.write(features.data)
            done += len(features)
            on_batch(len(features))
    if done != count:
        raise RuntimeError(f"feature cache: {done} of {count} images were read.")


def _begin(stream: BufferedWriter, shape: tuple[int, ...], folder: Path) -> None:
    """Write the header of an array of float32, and take the space of the array, which may be hours of work."""
    write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    size = stream.tell() + 4 * math.prod(shape)
    try:
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(
                f"feature cache {folder} has no room for {size:,} bytes of features ({error.strerror}); make room, or "
                "name another folder by feature_cache."
            ) from error
