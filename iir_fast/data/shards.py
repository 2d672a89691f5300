"""Data sets in tar shards, WebDataset's layout, read at random: ``root/<split>/*.tar``.

A sample is an image ``key.jpg`` (or .png, ...), its label ``key.cls``, a whole number as text, and perhaps ``key.json``
with ``{"boxes": [[x0, y0, x1, y1], ...]}`` in pixels.

Training draws subgroups of images of one class and goes on bit for bit where it was stopped, so images are read at
random. webdataset reads shards from end to end, and `wids`, its part that did not, is in no release since 1.0. So
webdataset writes shards and says what a sample's key is, and an index of our own (see `index_shards`) says where the
images are. An image's id is ``<split>/<shard>/<member>``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.files import read_text
from iir_fast.data.listing import ListedBox, Listing
from iir_fast.data.records import Fault, OnFault, class_limit, raise_fault
from iir_fast.data.shard_index import find_shards, index_shards

CLASSES = "classes.txt"
"""Class names, one a line, in the root of the data set; a label is the number of a line, from 0. Without it classes are
called by their numbers."""

AS_STORED = "as_stored"
"""An empty file beside shards whose images are to be read as they are stored, as those of benchmarks; others are read
upright."""


class ShardMember(NamedTuple):
    """A file in a shard: its name, and where its content begins and how long it is, in bytes.

    It is opened anew every time: no handle is carried into another process, however loaders are started, a thousand
    shards exhaust no limit, and beside the decoding of a photo the time is nothing.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def open(self, mode: Literal["rb"] = "rb", /) -> BinaryIO:
        """Read its content; OSError: the shard is gone, or shorter than it was."""
        with self.shard.open(mode) as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        if len(content) < self.size:
            raise OSError(f"the shard ends after {len(content):,} of its {self.size:,} bytes")
        return BytesIO(content)

    def stat(self) -> os.stat_result:
        """Look up the shard."""
        return self.shard.stat()


class ShardFolder:
    """The shards below a root as folders: ``folder / "train/000000.tar/n01440764/n01440764_10026.JPEG"``.

    It is made of the images' paths, where they begin in their shards and how long they are, both int64 [N], in bytes.
    """

    def __init__(self, root: Path, paths: Sequence[str], offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self._root = root
        self._numbers = {path: i for i, path in enumerate(paths)}
        self._offsets, self._sizes = offsets, sizes

    def __truediv__(self, path: str, /) -> ShardMember:
        split, shard, name = path.split("/", 2)
        i = self._numbers[path]
        return ShardMember(self._root / split / shard, name, int(self._offsets[i]), int(self._sizes[i]))


def list_shards(
    root: Path, split: str, classes: Sequence[str] | None = None, on_fault: OnFault = raise_fault
) -> Listing:
    """List what the index of a split's shards says, made by `index_shards` where there is none."""
    index = index_shards(root / split, on_fault)
    believed = index.labels[index.labels < class_limit(len(index.labels))]
    names = _class_names(root, split, int(believed.max(initial=-1)) + 1, classes, on_fault)
    shards = np.repeat(np.array(index.shards), index.counts).tolist()
    paths = [f"{split}/{shard}/{name}" for shard, name in zip(shards, index.names, strict=True)]
    kept = []
    for path, label in zip(paths, index.labels.tolist(), strict=True):
        if label < len(names):
            kept.append((path, label))
        else:
            on_fault(Fault("label", f"{root / path}: label must be below {len(names)}, got {label}"))
    boxes: dict[str, list[ListedBox]] = {}
    for i, *edges in index.boxes.tolist():
        path = paths[int(i)]
        boxes.setdefault(path, []).append(ListedBox(str(root / path), tuple(edges)))
    return Listing(
        root=ShardFolder(root, paths, index.offsets, index.sizes),
        split=split,
        classes=names,
        ids=tuple(path for path, _ in kept),
        labels=tuple(label for _, label in kept),
        boxes=boxes,
        upright=not (root / split / AS_STORED).exists(),
    )


def read_classes(root: Path) -> tuple[str, ...] | None:
    """Read the class names in the root of shards; None where there is no classes.txt."""
    file = root / CLASSES
    if not file.is_file():
        return None
    return tuple(read_text(file).removesuffix("\n").split("\n"))


def _class_names(root: Path, split: str, count: int, given: Sequence[str] | None, on_fault: OnFault) -> tuple[str, ...]:
    names = read_classes(root)
    if names is not None:
        if given is not None and tuple(given) != names:
            text = f"{root / CLASSES} must list the {len(given)} classes of the training split in their order"
            on_fault(Fault("label", text))
        return names
    if given is not None:
        return tuple(given)
    if split != "train" and find_shards(root / "train"):
        return list_shards(root, "train", on_fault=on_fault).classes
    return tuple(map(str, range(count)))
