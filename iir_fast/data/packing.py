"""From image files to tar shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast.app.files import remove_leftovers, scratch_folder, write_whole
from iir_fast.app.progress import tracked
from iir_fast.data.find import LISTED, SUFFIXES
from iir_fast.data.listing import ListedDataset
from iir_fast.data.shard_index import NEEDS_WEBDATASET, find_shards
from iir_fast.data.shards import AS_STORED, CLASSES, list_shards, read_classes
from iir_fast.data.sources import PROCEDURAL, open_split, training_classes

SHARD_BYTES = 1_000_000_000
"""Size from which a shard is full: ILSVRC makes about 150 of them, few to open and each quick to copy."""


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        folder: of the shards.
        shards: how many there are.
        images: how many they hold.
        boxes: how many they hold.
        masks_left_out: whether the source has masks, which shards do not hold.
    """

    folder: Path
    shards: int
    images: int
    boxes: int
    masks_left_out: bool


def pack_split(
    source: str,
    out: Path,
    split: str = "train",
    shard_bytes: int = SHARD_BYTES,
    *,
    raw_orientation: bool = False,
) -> Packed:
    """Write a split's images, as they are, with labels and boxes to ``out/<split>/000000.tar`` and so on.

    Beside the shards go their index and, in `out`, classes.txt. The shards appear when they are whole. The order is
    the source's: most of them go class by class, so that the images of a subgroup are neighbours on the disk. A key is
    the image's path without its suffix, further dots in its name replaced by "_", where webdataset would end it.

    Args:
        source: of image files, as `open_split` takes it.
        out: root of the shards; may hold other splits of the same classes.
        split: which part of the source.
        shard_bytes: size from which a shard is full.
        raw_orientation: of the source, as `open_split` takes it. Whether images are to be read upright goes along.

    Returns:
        What was written.

    Raises:
        FileExistsError: the split is there already.
        ModuleNotFoundError: webdataset is not installed.
        ValueError: the source has no image files, an image's suffix is not an image's, or two images would have one
            key.
        OSError, ValueError: as `open_split`, where classes other than those in `out` are a fault.
    """
    try:
        from webdataset import ShardWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NEEDS_WEBDATASET) from error
    if source == PROCEDURAL:
        raise ValueError(f"source {source} has no image files to pack")
    folder = out / split
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it, or choose another folder for the shards")
    known = read_classes(out) or training_classes(source, split, raw_orientation=raw_orientation)
    # All sources but the embedded one are of image files.
    dataset = cast(
        ListedDataset, open_split(source, split, pil_to_tensor, classes=known, raw_orientation=raw_orientation)
    )
    if any(len(name.splitlines()) != 1 for name in dataset.classes):
        raise ValueError(f"a name of a class must be one line of text, got {dataset.classes}")
    keys = _keys(dataset.ids)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    with scratch_folder(folder) as aside:
        # An absolute path, as webdataset takes what stands before a colon for a protocol.
        pattern = f"{aside.resolve()}/".replace("%", "%%") + "%06d.tar"
        with ShardWriter(pattern, maxsize=shard_bytes, mtime=0, verbose=0) as writer:
            for sample in tracked(_samples(dataset, keys), f"Packing {split}", len(dataset)):
                writer.write(sample)
        if not dataset.listing.upright:
            (aside / AS_STORED).touch()
        write_whole(out / CLASSES, "".join(f"{name}\n" for name in dataset.classes))
        aside.rename(folder)
    packed = list_shards(out, split)  # makes the index
    boxes = sum(map(len, packed.boxes.values()))
    return Packed(folder, len(find_shards(folder)), len(packed.ids), boxes, bool(dataset.listing.masks))


def _keys(paths: Sequence[str]) -> list[str]:
    keys: dict[str, str] = {}
    for path in map(PurePosixPath, paths):
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"image {path} must end in {LISTED} to be known as one in a shard")
        key = str(path.with_name(path.stem.replace(".", "_")))
        if key in keys:
            raise ValueError(f"images {keys[key]} and {path} would have one key in the shards, {key}; rename one")
        keys[key] = str(path)
    return list(keys)


def _samples(dataset: ListedDataset, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    listing = dataset.listing
    for i, path in enumerate(dataset.ids):
        with (listing.root / path).open("rb") as stream:
            content = stream.read()
        suffix = PurePosixPath(path).suffix.removeprefix(".")
        sample: dict[str, Any] = {"__key__": keys[i], suffix: content, "cls": str(dataset.labels[i])}
        if path in listing.boxes or path in listing.masks:
            sample["json"] = {"boxes": dataset.ground_truth(i).boxes.tolist()}
        yield sample
