"""shards:ROOT: images, labels, boxes and classes at random, by any process, and what goes wrong at reading."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from iir_fast.data import (
    BrokenImageError,
    LocalizationDataset,
    SplitSummary,
    check_data,
    has_split,
    image_transform,
    open_split,
)
from iir_fast.data.images import OPENED

TRANSFORM = image_transform(16, (0.5,) * 3, (0.5,) * 3)


Members = list[tuple[str, bytes]]
Write = Callable[[Path, Members], None]
Sample = Callable[..., Members]


def load(root: Path, split: str = "train", **options: Any) -> LocalizationDataset:
    return open_split(f"shards:{root}", split, TRANSFORM, **options)


def test_shards_made_by_hand(shards: Path, picture: Callable[[int], bytes]) -> None:
    data = load(shards)
    assert data.ids == ("train/a.tar/x/1.png", "train/a.tar/x/2.png", "train/b.tar/x/1.png", "train/b.tar/y.png")
    assert (data.labels, data.classes) == ((2, 0, 1, 2), ("ant", "bee", "cat"))
    assert data.ground_truth(0).boxes.tolist() == [[0, 1, 20, 12], [2.5, 3, 4, 5]]
    assert (data.ground_truth(3).size, data.ground_truth(3).boxes.shape) == ((20, 12), (0, 4))
    for i, label in enumerate(data.labels):
        assert torch.equal(data[i][0], TRANSFORM(Image.open(io.BytesIO(picture(label)))))
    assert has_split(f"shards:{shards}", "train")
    assert not has_split(f"shards:{shards}", "test")
    with pytest.raises(FileNotFoundError, match=r"shards/test holds no shards, files that end in \.tar"):
        load(shards, "test")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_the_same(shards: Path, start: str) -> None:
    data = load(shards)
    here = [data[i] for i in range(4)]
    loader = DataLoader(data, batch_size=1, sampler=[3, 1, 0, 2], num_workers=1, multiprocessing_context=start)
    for i, (images, labels) in zip([3, 1, 0, 2], loader, strict=True):
        assert torch.equal(images[0], here[i][0])
        assert labels.tolist() == [here[i][1]]


def test_classes(shards: Path, write_shard: Write, sample: Sample) -> None:
    write_shard(shards / "test/a.tar", sample("1", 1))
    assert load(shards, "test", classes=("ant", "bee", "cat")).labels == (1,)
    with pytest.raises(ValueError, match=r"classes\.txt must list the 2 classes of the training split in their order"):
        load(shards, "test", classes=("ant", "bee"))
    (shards / "classes.txt").write_text("ant\nbee")
    with pytest.raises(ValueError, match=r"train/a\.tar/x/1\.png: label must be below 2, got 2"):
        load(shards)
    (shards / "classes.txt").write_bytes(b"ant\xff")
    with pytest.raises(ValueError, match=r"classes\.txt is no text in UTF-8: "):
        load(shards)
    (shards / "classes.txt").unlink()
    assert load(shards).classes == load(shards, "test").classes == ("0", "1", "2")
    assert load(shards, "test", classes=("ant", "bee")).classes == ("ant", "bee")


def test_broken_images_are_named_with_their_shard(
    shards: Path, write_shard: Write, sample: Sample, picture: Callable[[int], bytes]
) -> None:
    write_shard(shards / "train/a.tar", [("x.png", b"no image"), ("x.cls", b"0"), *sample("y", 1)])
    with pytest.raises(BrokenImageError, match=r"The image train/a\.tar/x\.png cannot be read: cannot identify image"):
        load(shards).image(0)
    data = load(shards, skip_broken=True)
    assert data.skipped == ("train/a.tar/x.png",)
    assert torch.equal(data[0][0], TRANSFORM(Image.open(io.BytesIO(picture(1)))))


def test_a_shard_that_is_cut_or_gone_while_it_is_in_use(shards: Path) -> None:
    data = load(shards)
    with (shards / "train/a.tar").open("r+b") as stream:
        stream.truncate(600)
    with pytest.raises(BrokenImageError, match=r"a\.tar/x/1\.png cannot be read: the shard ends after 88 of its "):
        data.image(0)
    (shards / "train/a.tar").unlink()
    with pytest.raises(BrokenImageError, match=r"a\.tar/x/1\.png cannot be read: No such file"):
        data.image(0)


def test_check_names_every_fault(shards: Path, write_shard: Write, sample: Sample) -> None:
    assert check_data(f"shards:{shards}", decode=True).faults == ()
    assert check_data(f"shards:{shards}").splits == (SplitSummary("train", 4, 3, 1, 2, 2, 0),)
    outside = sample("s", 0, ("s.json", b'{"boxes": [[0, 0, 21, 5]]}'))
    write_shard(shards / "train/a.tar", [*sample("x", 7), ("y.png", b""), ("z.png", b""), ("z.cls", b"0"), *outside])
    (shards / "train/c.tar").write_bytes(b"")
    found = {(fault.kind, fault.message.replace(f"{shards}/", "")) for fault in check_data(f"shards:{shards}").faults}
    assert found == {
        ("corrupt shard", "train/a.tar: the sample y must have one label (.cls), it has none"),
        ("corrupt shard", "train/c.tar is no tar without compression: empty file"),
        ("label", "train/a.tar/x.png: label must be below 3, got 7"),
        (
            "unreadable image",
            "The image train/a.tar/z.png cannot be read: cannot identify image file; accepted are " + ", ".join(OPENED),
        ),
        ("box outside", "train/a.tar/s.png: the box 0,0,21,5 leaves its image, 20 x 12 pixels"),
    }
