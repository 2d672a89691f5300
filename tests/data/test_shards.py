"""shards:ROOT, tar shards: packing, the index, reading at random, and every way a shard can be wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from iir_fast.data import (
    BrokenImageError,
    Packed,
    ShardsDataset,
    SplitSummary,
    check_data,
    has_split,
    image_transform,
    open_split,
    pack_split,
)

TRANSFORM = image_transform(16, (0.5,) * 3, (0.5,) * 3)
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def write(file: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """A shard of these members."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def sample(key: str, label: int, *others: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{key}.png", picture(label)), (f"{key}.cls", b"%d\n" % label), *others]


def load(root: Path, split: str = "train", **options: Any) -> ShardsDataset:
    return ShardsDataset(root, split, transform=TRANSFORM, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four samples of three classes in two shards, made by hand."""
    boxes = json.dumps({"boxes": [[0, 1, 20, 12], [2.5, 3, 4, 5]], "by": "hand"}).encode()
    root = tmp_path / "shards"
    write(root / "train/a.tar", [*sample("x/1", 2, ("x/1.json", boxes), ("x/1.txt", b"text")), *sample("x/2", 0)])
    write(root / "train/b.tar", [("README", b"no sample"), *sample("x/1", 1), *sample("y", 2)])
    (root / "classes.txt").write_text("ant\nbee\ncat\n")
    return root


# Packing


def test_what_is_packed_comes_back(cub: Path, tmp_path: Path) -> None:
    out = tmp_path / "50%d #1"
    counts = {"train": 6, "val": 2, "test": 4}
    for split, count in counts.items():
        packed = pack_split(f"cub:{cub}", out, split, shard_bytes=2000)
        shards = len(list((out / split).glob("*.tar")))
        assert packed == Packed(out / split, shards, count, count, masks_left_out=False)
        source, copy = open_split(f"cub:{cub}", split, TRANSFORM), open_split(f"shards:{out}", split, TRANSFORM)
        assert copy.classes == source.classes == BIRDS
        assert copy.labels == source.labels
        for i, path in enumerate(source.ids):
            assert copy.ids[i].split("/", 2)[2] == path
            assert (copy.listing.root / copy.ids[i]).open("rb").read() == (cub / "CUB" / path).read_bytes()
            assert np.array_equal(copy.ground_truth(i).boxes, source.ground_truth(i).boxes)
            assert copy.ground_truth(i).size == source.ground_truth(i).size
            assert torch.equal(copy[i][0], source[i][0])
    assert len(list((out / "train").glob("*.tar"))) > 1
    assert {file.name for file in out.iterdir()} == {"classes.txt", *counts}


def test_webdataset_reads_what_was_packed(cub: Path, tmp_path: Path) -> None:
    pack_split(f"cub:{cub}", tmp_path / "out", "test", shard_bytes=2000)
    files = sorted(map(str, (tmp_path / "out/test").glob("*.tar")))
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    assert [each["__key__"] for each in samples] == [f"{bird}/test_{i}" for bird in BIRDS for i in range(2)]
    assert [each["cls"] for each in samples] == [b"0", b"0", b"1", b"1"]
    assert samples[0]["jpg"] == (cub / "CUB" / BIRDS[0] / "test_0.jpg").read_bytes()
    assert json.loads(samples[3]["json"]) == {"boxes": [[2, 3, 20, 5]]}


def test_packing_twice_gives_the_same_bytes(cub: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack_split(f"cub:{cub}", tmp_path / name)
    assert (tmp_path / "one/train/000000.tar").read_bytes() == (tmp_path / "two/train/000000.tar").read_bytes()


def test_masks_are_left_out_and_their_boxes_kept(pet: Path, tmp_path: Path) -> None:
    packed = pack_split(f"pet:{pet}", tmp_path / "out", "test")
    assert packed.masks_left_out
    assert load(tmp_path / "out", "test").ground_truth(0).boxes.tolist() == [[4, 3, 12, 9]]
    assert load(tmp_path / "out", "test").classes == ("Abyssinian", "American Bulldog")


def test_a_test_split_without_some_classes_keeps_their_numbers(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.v2.png"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "train.csv").write_text("path,label\na.png,ant\nb.png,fox\n")
    (tmp_path / "test.csv").write_text("path,label,x0,y0,x1,y1\nc.v2.png,fox,0,0,5.5,5\n")
    pack_split(str(tmp_path), tmp_path / "out", "test")
    data = load(tmp_path / "out", "test")
    assert (data.classes, data.labels, data.ids) == (("ant", "fox"), (1,), ("test/000000.tar/c_v2.png",))
    assert data.ground_truth(0).boxes.tolist() == [[0, 0, 5.5, 5]]


def test_what_cannot_be_packed(tmp_path: Path, cub: Path, pet: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="source procedural has no image files to pack"):
        pack_split("procedural", out)
    pack_split(f"cub:{cub}", out)
    with pytest.raises(FileExistsError, match="out/train exists; remove it, or choose another folder"):
        pack_split(f"cub:{cub}", out)
    with pytest.raises(ValueError, match=r"test\.txt, line 1: breed 1 is not that of 'Abyssinian' in the training"):
        pack_split(f"pet:{pet}", out, "test")
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "train.csv").write_text("path,label\na.png,0\na.jpg,1\n")
    with pytest.raises(ValueError, match=r"images a\.png and a\.jpg would have one key in the shards, a; rename one"):
        pack_split(str(tmp_path), tmp_path / "other")
    (tmp_path / "train.csv").write_text("path,label\na.gif,0\n")
    (tmp_path / "a.gif").write_bytes(picture())
    with pytest.raises(ValueError, match=r"image a\.gif must end in \.jpg, "):
        pack_split(str(tmp_path), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_pack_that_fails_leaves_no_shard(cub: Path, tmp_path: Path) -> None:
    (cub / "CUB" / BIRDS[1] / "train_2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_2\.jpg"):
        pack_split(f"cub:{cub}", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# Reading


def test_shards_made_by_hand(root: Path) -> None:
    data = open_split(f"shards:{root}", "train", TRANSFORM)
    assert isinstance(data, ShardsDataset)
    assert data.ids == ("train/a.tar/x/1.png", "train/a.tar/x/2.png", "train/b.tar/x/1.png", "train/b.tar/y.png")
    assert (data.labels, data.classes) == ((2, 0, 1, 2), ("ant", "bee", "cat"))
    assert data.ground_truth(0).boxes.tolist() == [[0, 1, 20, 12], [2.5, 3, 4, 5]]
    assert (data.ground_truth(3).size, data.ground_truth(3).boxes.shape) == ((20, 12), (0, 4))
    for i, label in enumerate(data.labels):
        assert torch.equal(data[i][0], TRANSFORM(Image.open(io.BytesIO(picture(label)))))
    assert has_split(f"shards:{root}", "train")
    assert not has_split(f"shards:{root}", "test")
    with pytest.raises(FileNotFoundError, match=r"shards/test holds no shards, files that end in \.tar"):
        load(root, "test")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_the_same(root: Path, start: str) -> None:
    data = load(root)
    here = [data[i] for i in range(4)]
    loader = DataLoader(data, batch_size=1, sampler=[3, 1, 0, 2], num_workers=1, multiprocessing_context=start)
    for i, (images, labels) in zip([3, 1, 0, 2], loader, strict=True):
        assert torch.equal(images[0], here[i][0])
        assert labels.tolist() == [here[i][1]]


def test_classes(root: Path) -> None:
    write(root / "test/a.tar", sample("1", 1))
    assert load(root, "test", classes=("ant", "bee", "cat")).labels == (1,)
    with pytest.raises(ValueError, match=r"classes\.txt must list the 2 classes of the training split in their order"):
        load(root, "test", classes=("ant", "bee"))
    (root / "classes.txt").write_text("ant\nbee")
    with pytest.raises(ValueError, match=r"train/a\.tar/x/1\.png: label must be below 2, got 2"):
        load(root)
    (root / "classes.txt").unlink()
    assert load(root).classes == load(root, "test").classes == ("0", "1", "2")
    assert load(root, "test", classes=("ant", "bee")).classes == ("ant", "bee")


# The index


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("a shard was read")

    monkeypatch.setattr(tarfile, "open", fail)


def test_shards_are_read_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    assert [file.name for file in (root / "train").iterdir() if file.suffix != ".tar"] == ["index.npz"]
    assert not cache.exists()
    expected = first.ids, first.labels, first.fingerprint
    moved = root.rename(root.with_name("moved"))
    forbid_reading(monkeypatch)
    again = load(moved)
    assert (again.ids, again.labels, again.fingerprint) == expected
    assert torch.equal(again[2][0], TRANSFORM(Image.open(io.BytesIO(picture(1)))))


def test_shards_that_changed_are_read_again(root: Path) -> None:
    before = load(root).fingerprint
    write(root / "train/b.tar", [*sample("y", 1), *sample("z", 0)])
    data = load(root)
    assert data.ids[2:] == ("train/b.tar/y.png", "train/b.tar/z.png")
    assert data.fingerprint != before
    (root / "train/a.tar").unlink()
    assert load(root).labels == (1, 0)
    write(root / "train/c.tar", sample("y", 2))
    assert load(root).labels == (1, 0, 2)


def test_a_damaged_index_is_made_again(root: Path) -> None:
    ids = load(root).ids
    index = root / "train/index.npz"
    whole = index.read_bytes()
    for content in (b"", b"no index", whole[: len(whole) // 2]):
        index.write_bytes(content)
        assert load(root).ids == ids
        assert index.read_bytes() == whole


def test_an_index_that_cannot_stand_beside_the_shards(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train/index.npz").mkdir()  # what no file can replace
    cache.write_text("no folder")
    ids = load(root).ids
    said = " ".join(capsys.readouterr().err.split())
    assert "train cannot be kept and will be made again: " in said
    cache.unlink()
    assert load(root).ids == ids
    assert len(list((cache / "iir_fast/shards").glob("*.npz"))) == 1
    assert not list(root.rglob("*.part"))
    assert not list(cache.rglob("*.part"))
    forbid_reading(monkeypatch)
    assert load(root).ids == ids


# Faults


def broken(members: list[tuple[str, bytes]], root: Path) -> str:
    """What is said of a shard."""
    write(root / "train/a.tar", members)
    with pytest.raises(ValueError, match="train/a") as caught:
        load(root)
    return str(caught.value).replace(str(root / "train") + "/", "")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (sample("x", 0)[:1], "a.tar: the sample x must have one label (.cls), it has none"),
        (sample("x", 0)[1:], "a.tar: the sample x must have one image, it has none"),
        ([*sample("x", 0), ("x.jpg", b"")], "a.tar: the sample x must have one image, it has 2 members"),
        ([*sample("x", 0), *sample("y", 0), *sample("x", 0)], "a.tar: x.png is there twice"),
        ([("x.png", b""), ("x.cls", b"cat")], "a.tar, x.cls: label must be a whole number from 0 up, got 'cat'"),
        ([("x.png", b""), ("x.cls", b"-1")], "a.tar, x.cls: label must be a whole number from 0 up, got '-1'"),
        ([("x.png", b""), ("x.cls", b"9" * 30)], f"a.tar, x.cls: label must be below 1,000,000, got {'9' * 30}"),
        (sample("x", 3), "a.tar/x.png: label must be below 3, got 3"),
        (
            sample("x", 0, ("x.json", b'{"boxes": [[5, 0, 4, 1]]}')),
            "a.tar, x.json: 0 <= x0 <= x1 and 0 <= y0 <= y1 must hold, got '5,0,4,1'",
        ),
        (
            sample("x", 0, ("x.json", b'{"boxes": [[5, 0, 4]]}')),
            "a.tar, x.json: x0,y0,x1,y1 must be numbers, got '5,0,4'",
        ),
    ],
)
def test_malformed_samples(root: Path, members: list[tuple[str, bytes]], message: str) -> None:
    assert broken(members, root) == message
    # The index is kept where the shards are sound and only belie classes.txt.
    assert (root / "train/index.npz").exists() == ("below 3" in message)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"boxes": 5}', b'{"boxes": [5]}', b"\xff"])
def test_malformed_json(root: Path, content: bytes) -> None:
    said = broken(sample("x", 0, ("x.json", content)), root)
    assert said.startswith('a.tar, x.json: a JSON object is accepted, whose "boxes" is a list of [x0, y0, x1, y1]: ')


def test_shards_without_a_sample(root: Path) -> None:
    (root / "train/b.tar").unlink()
    write(root / "train/a.tar", [("README", b"")])
    with pytest.raises(ValueError, match=r"the shards in .*train hold no sample"):
        load(root)


def damaged(root: Path, content: bytes) -> str:
    (root / "train/a.tar").write_bytes(content)
    with pytest.raises(ValueError, match="train/a") as caught:
        load(root)
    return str(caught.value).replace(str(root / "train") + "/", "")


def test_damaged_shards(root: Path) -> None:
    write(root / "train/a.tar", [*sample("x", 0), *sample("y", 1)])
    whole = (root / "train/a.tar").read_bytes()
    with tarfile.open(root / "train/a.tar") as tar:
        _, x_label, y, y_label = tar.getmembers()
    assert damaged(root, b"").startswith("a.tar is no tar without compression: empty file")
    assert damaged(root, b"x" * 2000).startswith("a.tar is no tar without compression: ")
    assert damaged(root, whole[: y.offset_data + 5]) == "a.tar is cut off within its member y.png"
    assert damaged(root, whole[: y.offset + 5]) == "a.tar is damaged or cut off after its member x.cls"
    assert damaged(root, whole[: y.offset]) == "a.tar is damaged or cut off after its member x.cls"
    assert damaged(root, whole[: y_label.offset_data + 512]) == "a.tar is damaged or cut off after its member y.cls"
    header = b"#" * 512
    assert damaged(root, whole[: x_label.offset] + header + whole[x_label.offset + 512 :]).endswith("member x.png")


def test_broken_images_are_named_with_their_shard(root: Path) -> None:
    write(root / "train/a.tar", [("x.png", b"no image"), ("x.cls", b"0"), *sample("y", 1)])
    with pytest.raises(BrokenImageError, match=r"The image train/a\.tar/x\.png cannot be read: cannot identify image"):
        load(root).image(0)
    data = load(root, skip_broken=True)
    assert data.skipped == ("train/a.tar/x.png",)
    assert torch.equal(data[0][0], TRANSFORM(Image.open(io.BytesIO(picture(1)))))


def test_a_shard_that_is_cut_or_gone_while_it_is_in_use(root: Path) -> None:
    data = load(root)
    with (root / "train/a.tar").open("r+b") as stream:
        stream.truncate(600)
    with pytest.raises(BrokenImageError, match=r"a\.tar/x/1\.png cannot be read: the shard ends after 88 of its "):
        data.image(0)
    (root / "train/a.tar").unlink()
    with pytest.raises(BrokenImageError, match=r"a\.tar/x/1\.png cannot be read: No such file"):
        data.image(0)


def test_check_names_every_fault(root: Path) -> None:
    assert check_data(f"shards:{root}", decode=True).faults == ()
    assert check_data(f"shards:{root}").splits == (SplitSummary("train", 4, 3, 1, 2, 2, 0),)
    outside = sample("s", 0, ("s.json", b'{"boxes": [[0, 0, 21, 5]]}'))
    write(root / "train/a.tar", [*sample("x", 7), ("y.png", b""), ("z.png", b""), ("z.cls", b"0"), *outside])
    (root / "train/c.tar").write_bytes(b"")
    found = {(fault.kind, fault.message.replace(f"{root}/", "")) for fault in check_data(f"shards:{root}").faults}
    assert found == {
        ("corrupt shard", "train/a.tar: the sample y must have one label (.cls), it has none"),
        ("corrupt shard", "train/c.tar is no tar without compression: empty file"),
        ("label", "train/a.tar/x.png: label must be below 3, got 7"),
        ("unreadable image", "The image train/a.tar/z.png cannot be read: cannot identify image file"),
        ("box outside", "train/a.tar/s.png: the box 0,0,21,5 leaves its image, 20 x 12 pixels"),
    }


def test_without_webdataset(root: Path, cub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = load(root).ids
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    assert load(root).ids == kept
    (root / "train/index.npz").unlink()
    for call in (lambda: load(root), lambda: pack_split(f"cub:{cub}", root / "out")):
        with pytest.raises(ModuleNotFoundError, match=r'shards need webdataset: pip install "iir-fast\[shards\]"'):
            call()


# As a user does it


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iir_fast.cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_from_folders_of_images_to_a_model(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                file = tmp_path / "photos" / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(10 * label + i))
    out = tmp_path / "out"
    source = f"images:{tmp_path / 'photos'}"
    assert run("data", "pack", source, out).stdout == f"{out / 'train'}: 8 images, 0 boxes; shards: 1\n"
    pack_split(source, out, "test")
    small = ["--image-size", 32, "--hidden", 8, "--classes-per-batch", 2, "--images-per-class", 2]
    options = ["--max-steps", 2, "--workers", 1, "--flip"]
    trained = run("train", tmp_path / "run", "--data", f"shards:{out}", *small, *options)
    assert "test has neither boxes nor masks: nothing is localized there, the top-1 accuracy is" in " ".join(
        trained.stderr.split()
    )
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["test"]["cam"]
    assert (metrics["images"], metrics["max_box_acc_v2"]) == (2, None)
