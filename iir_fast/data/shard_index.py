"""What tar shards hold and where: read once, then kept in a file."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.cache import cache_folder
from iir_fast.app.files import in_short, whole_file
from iir_fast.app.progress import in_threads, log
from iir_fast.data.find import SUFFIXES
from iir_fast.data.records import Fault, OnFault, parse_box, parse_whole

INDEX = "index.npz"
"""Name of the index beside the shards."""

MAX_CLASSES = 1_000_000
"""A larger label is taken for something else than a class: each class costs a row of the classifier."""

NEEDS_WEBDATASET = 'shards need webdataset: pip install "iir-fast[shards]"'

_BLOCK = 512  # bytes; a tar is made of such blocks and ends with empty ones


@dataclass(frozen=True)
class ShardIndex:
    """The images in the shards of one split.

    Attributes:
        shards: names of the shards, sorted.
        stamps: int64 [S,2], their sizes in bytes and times of modification in nanoseconds when they were read.
        counts: int64 [S], images in each.
        names: of the images' members, shard after shard.
        offsets: int64 [N], where the images begin in their shards, in bytes.
        sizes: int64 [N], bytes of the images.
        labels: int64 [N].
        boxes: float64 [M,5], number of the image, x0, y0, x1, y1.
    """

    shards: tuple[str, ...]
    stamps: NDArray[np.int64]
    counts: NDArray[np.int64]
    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]


def index_shards(folder: Path, on_fault: OnFault) -> ShardIndex:
    """Index all ``*.tar`` in a folder, or take the index that is kept, if the shards are still the same.

    A new one is written beside the shards or, where that cannot be, in the user's cache folder. Nothing is written
    where there is a fault.

    Raises:
        FileNotFoundError: there is no shard.
        ModuleNotFoundError: shards must be read, and webdataset is not installed.
    """
    files = find_shards(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no shards, files that end in .tar")
    status = [file.stat() for file in files]
    stamps = np.array([(each.st_size, each.st_mtime_ns) for each in status], np.int64)
    shards = tuple(file.name for file in files)
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
    places = folder / INDEX, cache_folder("shards") / f"{key}.npz"
    for place in places:
        kept = _load(place)
        if kept is not None and kept.shards == shards and np.array_equal(kept.stamps, stamps):
            return kept
    contents = in_threads(_read_shard, files, f"Indexing {folder.name}", shown_from=1)
    faults = [fault for _, found in contents for fault in found]
    if not faults and not any(entries for entries, _ in contents):
        faults = [Fault("missing image", f"the shards in {folder} hold no sample")]
    for fault in faults:
        on_fault(fault)
    entries = [entry for entries, _ in contents for entry in entries]
    numbers = [(entry.offset, entry.size, entry.label) for entry in entries]
    offsets, sizes, labels = np.array(numbers, np.int64).reshape(-1, 3).T
    boxes = [(i, *box) for i, entry in enumerate(entries) for box in entry.boxes]
    index = ShardIndex(
        shards=shards,
        stamps=stamps,
        counts=np.array([len(entries) for entries, _ in contents], np.int64),
        names=tuple(entry.name for entry in entries),
        offsets=offsets,
        sizes=sizes,
        labels=labels,
        boxes=np.array(boxes, np.float64).reshape(-1, 5),
    )
    if not faults:
        _keep(index, folder, places)
    return index


def find_shards(folder: Path) -> list[Path]:
    """Find the shards in a folder, sorted by name; those that begin with a dot are none."""
    return sorted(file for file in folder.glob("*.tar") if not file.name.startswith("."))


class _Entry(NamedTuple):
    """One image of a shard."""

    name: str
    offset: int
    size: int
    label: int
    boxes: list[tuple[float, ...]]


def _read_shard(file: Path) -> tuple[list[_Entry], list[Fault]]:
    """Read headers, labels and boxes of all samples of a shard; the images are left alone."""
    entries: dict[str, _Entry] = {}
    faults: list[Fault] = []
    try:
        if not file.is_file():  # opening a pipe would wait
            raise Fault("corrupt shard", f"{file} is not a regular file")
        with file.open("rb") as stream:
            for key, sample in _samples(_members(file, stream)):
                try:
                    entry = _entry(file, stream, key, sample)
                    if entry.name in entries:
                        raise Fault("duplicate id", f"{file}: {entry.name} is there twice")
                    entries[entry.name] = entry
                except Fault as fault:
                    faults.append(fault)
    except Fault as fault:
        faults.append(fault)
    except OSError as error:
        faults.append(Fault("corrupt shard", f"{file} cannot be read: {error.strerror or error}"))
    return list(entries.values()), faults


def _members(file: Path, stream: BinaryIO) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    try:
        # It lets through whatever it meets in a header: TarError, ValueError, MemoryError ...
        with tarfile.open(fileobj=stream, mode="r:") as tar, suppress(Exception):
            members.extend(tar)
    except Exception as error:
        raise Fault("corrupt shard", f"{file} is no tar without compression: {in_short(error)}") from error
    if sparse := next((member.name for member in members if member.issparse()), None):
        raise Fault("corrupt shard", f"{file}: its member {sparse} is sparse; a whole file is accepted")
    # tarfile takes a damaged header, or a file that ends with a member, for the end of the archive.
    end, last = 0, "its beginning"
    if members:
        end = members[-1].offset_data + (members[-1].size if members[-1].isreg() else 0)
        last = f"its member {members[-1].name}"
    if end > file.stat().st_size:
        raise Fault("corrupt shard", f"{file} is cut off within {last}")
    stream.seek(-(-end // _BLOCK) * _BLOCK)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise Fault("corrupt shard", f"{file} is damaged or cut off after {last}")
    return members


def _samples(members: Iterable[tarfile.TarInfo]) -> Iterator[tuple[str, list[tuple[str, tarfile.TarInfo]]]]:
    """Group neighbours that share a key: the key, and suffix and member of each. Key and suffix are webdataset's."""
    try:
        from webdataset.tariterators import base_plus_ext
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NEEDS_WEBDATASET) from error
    named = [(*base_plus_ext(member.name), member) for member in members if member.isreg()]
    for key, group in groupby((each for each in named if each[0] is not None), key=lambda each: each[0]):
        yield key, [(suffix.lower(), member) for _, suffix, member in group]


def _entry(file: Path, stream: BinaryIO, key: str, sample: list[tuple[str, tarfile.TarInfo]]) -> _Entry:
    def only(what: str, suffixes: Iterable[str]) -> tarfile.TarInfo:
        members = [member for suffix, member in sample if f".{suffix}" in suffixes]
        if len(members) != 1:
            count = f"{len(members)} members" if members else "none"
            raise Fault("corrupt shard", f"{file}: the sample {key} must have one {what}, it has {count}")
        return members[0]

    def text(member: tarfile.TarInfo) -> str:
        stream.seek(member.offset_data)
        return stream.read(member.size).decode("utf-8", errors="replace")

    image, label = only("image", SUFFIXES), only("label (.cls)", (".cls",))
    boxes = []
    if any(suffix == "json" for suffix, _ in sample):
        member = only(".json", (".json",))
        boxes = _boxes(text(member), f"{file}, {member.name}")
    where = f"{file}, {label.name}"
    number = parse_whole(text(label).strip()[:80], "label", where)
    if number >= MAX_CLASSES:
        raise Fault("label", f"{where}: label must be below {MAX_CLASSES:,}, got {number}")
    return _Entry(image.name, image.offset_data, image.size, number, boxes)


def _boxes(text: str, where: str) -> list[tuple[float, ...]]:
    try:
        boxes = json.loads(text).get("boxes", [])
        return [parse_box([str(edge) for edge in box], where, inclusive=True) for box in boxes]
    except Fault:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        accepted = 'a JSON object is accepted, whose "boxes" is a list of [x0, y0, x1, y1]'
        raise Fault("corrupt line", f"{where}: {accepted}: {error}") from error


def _load(file: Path) -> ShardIndex | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            content = dict(arrays)
            index = ShardIndex(**content | {name: _split(content[name]) for name in ("shards", "names")})
            return index if _is_sound(index) else None
    # There is none, or none of ours. The parsers of zipfile and numpy let through whatever they meet.
    except Exception:
        return None


def _is_sound(index: ShardIndex) -> bool:
    """Tell whether all parts of an index fit together, and lie in the shards."""
    shards, images = len(index.shards), len(index.names)
    shapes = {"stamps": (shards, 2), "counts": (shards,), "offsets": (images,), "sizes": (images,), "labels": (images,)}
    arrays = [index.boxes, *(getattr(index, name) for name in shapes)]
    if [each.dtype.name for each in arrays] != ["float64", *["int64"] * len(shapes)]:
        return False
    if index.boxes.shape[1:] != (5,) or any(getattr(index, name).shape != shape for name, shape in shapes.items()):
        return False
    if min(map(int, (each.min(initial=0) for each in arrays))) < 0 or index.counts.sum() != images:
        return False
    ends = index.stamps[:, 0].repeat(index.counts)
    fits = (index.offsets <= ends) & (index.sizes <= ends - index.offsets) & (index.labels < MAX_CLASSES)
    return bool(fits.all() and np.isfinite(index.boxes).all() and (index.boxes[:, 0] < images).all())


def _keep(index: ShardIndex, folder: Path, places: Iterable[Path]) -> None:
    """Write the index to the first place that takes it."""
    reason = ""
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as aside, aside.open("wb") as stream:
                np.savez(stream, **(vars(index) | {"shards": _joined(index.shards), "names": _joined(index.names)}))
            return
        except OSError as error:
            reason = str(error)
    log(f"the index of {folder} cannot be kept and will be made again: {reason}.")


def _joined(names: tuple[str, ...]) -> NDArray[np.uint8]:
    # As one text: an array of strings would give each the room of the longest. No name in a tar holds a NUL.
    return np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)


def _split(joined: NDArray[np.uint8]) -> tuple[str, ...]:
    text = joined.tobytes().decode("utf-8", "surrogateescape")
    return tuple(text.split("\0")) if text else ()
