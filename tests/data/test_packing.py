"""Packing a split into tar shards: what comes back, what cannot be packed, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import ExifTags, Image

from iir_fast.data import Packed, image_transform, open_split, pack_split

TRANSFORM = image_transform(16, (0.5,) * 3, (0.5,) * 3)
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


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
    copy = open_split(f"shards:{tmp_path / 'out'}", "test", TRANSFORM)
    assert copy.ground_truth(0).boxes.tolist() == [[4, 3, 12, 9]]
    assert copy.classes == ("Abyssinian", "American Bulldog")


def test_a_test_split_without_some_classes_keeps_their_numbers(tmp_path: Path, picture: Callable[[int], bytes]) -> None:
    for name in ("a.png", "b.png", "c.v2.png"):
        (tmp_path / name).write_bytes(picture(0))
    (tmp_path / "train.csv").write_text("path,label\na.png,ant\nb.png,fox\n")
    (tmp_path / "test.csv").write_text("path,label,x0,y0,x1,y1\nc.v2.png,fox,0,0,5.5,5\n")
    pack_split(str(tmp_path), tmp_path / "out", "test")
    data = open_split(f"shards:{tmp_path / 'out'}", "test", TRANSFORM)
    assert (data.classes, data.labels, data.ids) == (("ant", "fox"), (1,), ("test/000000.tar/c_v2.png",))
    assert data.ground_truth(0).boxes.tolist() == [[0, 0, 5.5, 5]]


def test_whether_images_are_read_upright_goes_along(tmp_path: Path, cub: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying = Image.new("RGB", (20, 12))
    for name in ("a.jpg", "b.jpg"):
        lying.save(tmp_path / name, exif=exif)
    (tmp_path / "train.csv").write_text("path,label,x0,y0,x1,y1\na.jpg,ant,0,0,12,12\nb.jpg,fox,0,0,12,12\n")
    for path in (cub / "CUB").glob("*/train_0.jpg"):
        lying.save(path, exif=exif)
    sizes = {}
    for name, source in (("own", str(tmp_path)), ("cub", f"cub:{cub}")):
        pack_split(source, tmp_path / name)
        data = open_split(f"shards:{tmp_path / name}", "train", TRANSFORM)
        sizes[name] = data.image(0).size, data.ground_truth(0).size
    pack_split(str(tmp_path), tmp_path / "raw", raw_orientation=True)
    sizes["raw"] = open_split(f"shards:{tmp_path / 'raw'}", "train", TRANSFORM).ground_truth(0).size
    assert sizes == {"own": ((12, 20), (12, 20)), "cub": ((20, 12), (20, 12)), "raw": (20, 12)}
    assert open_split(f"shards:{tmp_path / 'own'}", "train", TRANSFORM, raw_orientation=True).image(0).size == (20, 12)


def test_what_cannot_be_packed(tmp_path: Path, cub: Path, pet: Path, picture: Callable[[int], bytes]) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="source procedural has no image files to pack"):
        pack_split("procedural", out)
    pack_split(f"cub:{cub}", out)
    with pytest.raises(FileExistsError, match="out/train exists; remove it, or choose another folder"):
        pack_split(f"cub:{cub}", out)
    with pytest.raises(ValueError, match=r"test\.txt, line 1: breed 1 is not that of 'Abyssinian' in the training"):
        pack_split(f"pet:{pet}", out, "test")
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "a.jpg").write_bytes(picture(0))
    (tmp_path / "train.csv").write_text("path,label\na.png,0\na.jpg,1\n")
    with pytest.raises(ValueError, match=r"images a\.png and a\.jpg would have one key in the shards, a; rename one"):
        pack_split(str(tmp_path), tmp_path / "other")
    (tmp_path / "train.csv").write_text("path,label\na.xyz,0\n")
    (tmp_path / "a.xyz").write_bytes(picture(0))
    with pytest.raises(ValueError, match=r"image a\.xyz must end in \.jpg, "):
        pack_split(str(tmp_path), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_pack_that_fails_leaves_no_shard(cub: Path, tmp_path: Path) -> None:
    (cub / "CUB" / BIRDS[1] / "train_2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_2\.jpg"):
        pack_split(f"cub:{cub}", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_pack_left_is_removed(cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        pack_split(f"cub:{cub}", tmp_path / "out")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    [left] = (tmp_path / "out").glob("train*")
    assert sorted(file.name for file in left.iterdir()) == ["000000.tar", "as_stored"]
    pack_split(f"cub:{cub}", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["classes.txt", "train"]


@pytest.mark.slow
def test_from_folders_of_images_to_a_model(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, picture: Callable[[int], bytes]
) -> None:
    for split, count in (("train", 4), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                file = tmp_path / "photos" / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(10 * label + i))
    out = tmp_path / "out"
    source = f"images:{tmp_path / 'photos'}"
    assert cli("data", "pack", source, out).stdout == f"{out / 'train'}: 8 images, 0 boxes; shards: 1\n"
    pack_split(source, out, "test")
    small = ["--image-size", 32, "--hidden", 8, "--classes-per-batch", 2, "--images-per-class", 2]
    options = ["--max-steps", 2, "--workers", 1, "--flip"]
    trained = cli("train", tmp_path / "run", "--data", f"shards:{out}", *small, *options)
    assert "test has neither boxes nor masks: nothing is localized there, the top-1 accuracy is" in " ".join(
        trained.stderr.split()
    )
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["test"]["cam"]
    assert (metrics["images"], metrics["max_box_acc_v2"]) == (2, None)
