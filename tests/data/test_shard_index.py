"""The index of tar shards: made once, made again when it must be, and every way a shard can be wrong."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from iir_fast.data import LocalizationDataset, image_transform, open_split, pack_split

Write = Callable[[Path, list[tuple[str, bytes]]], None]
Change: TypeAlias = Callable[[Any], Any]


def load(root: Path) -> LocalizationDataset:
    return open_split(f"shards:{root}", "train", image_transform(16, (0.5,) * 3, (0.5,) * 3))


def sample(key: str, label: int, *others: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    """Members of a shard; the index never looks into an image."""
    return [(f"{key}.png", b"an image"), (f"{key}.cls", b"%d" % label), *others]


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("a shard was read")

    monkeypatch.setattr(tarfile, "open", fail)


def test_shards_are_read_once(shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(shards)
    assert [file.name for file in (shards / "train").iterdir() if file.suffix != ".tar"] == ["index.npz"]
    assert not cache.exists()
    image, expected = first[2][0], (first.ids, first.labels, first.fingerprint)
    moved = shards.rename(shards.with_name("moved"))
    forbid_reading(monkeypatch)
    again = load(moved)
    assert (again.ids, again.labels, again.fingerprint) == expected
    assert torch.equal(again[2][0], image)


def test_shards_that_changed_are_read_again(shards: Path, write_shard: Write) -> None:
    before = load(shards).fingerprint
    write_shard(shards / "train/b.tar", [*sample("y", 1), *sample("z", 0)])
    data = load(shards)
    assert data.ids[2:] == ("train/b.tar/y.png", "train/b.tar/z.png")
    assert data.fingerprint != before
    (shards / "train/a.tar").unlink()
    assert load(shards).labels == (1, 0)
    write_shard(shards / "train/c.tar", sample("y", 2))
    assert load(shards).labels == (1, 0, 2)


def test_a_damaged_index_is_made_again(shards: Path) -> None:
    ids = load(shards).ids
    index = shards / "train/index.npz"
    whole = index.read_bytes()
    for content in (b"", b"no index", whole[: len(whole) // 2]):
        index.write_bytes(content)
        assert load(shards).ids == ids
        assert index.read_bytes() == whole


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("names", lambda names: names.astype(np.float64)),
        ("names", lambda names: names[: -len("/y.png")]),
        ("names", lambda names: names.reshape(1, -1)[:, :0]),
        ("counts", lambda counts: counts - 1),
        ("counts", lambda counts: -counts),
        ("offsets", lambda offsets: offsets - 10**6),
        ("sizes", lambda sizes: sizes + 2**60),
        ("labels", lambda labels: labels.astype(np.float32)),
        ("labels", lambda labels: labels + 10**9),
        ("boxes", lambda boxes: np.zeros((1, 4))),
        ("boxes", lambda boxes: np.array([[99.0, 0, 0, 5, 5]])),
        ("boxes", lambda boxes: np.array([[0, 0, 0, 5, np.inf]])),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_made_again(shards: Path, part: str, change: Change) -> None:
    ids = load(shards).ids
    index = shards / "train/index.npz"
    whole = index.read_bytes()
    with np.load(index) as arrays:
        content = dict(arrays)
    np.savez(index, **content | {part: change(content[part])})
    assert load(shards).ids == ids
    assert index.read_bytes() == whole


def test_an_index_whose_header_is_no_literal_is_made_again(shards: Path) -> None:
    ids = load(shards).ids
    index = shards / "train/index.npz"
    whole = index.read_bytes()
    with ZipFile(index) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["labels.npy"] = members["labels.npy"].replace(b"'descr'", b'"""escr\'')
    with ZipFile(index, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert load(shards).ids == ids
    assert index.read_bytes() == whole


def test_an_index_that_cannot_stand_beside_the_shards(
    shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards / "train/index.npz").mkdir()  # what no file can replace
    cache.write_text("no folder")
    ids = load(shards).ids
    said = " ".join(capsys.readouterr().err.split())
    assert "train cannot be kept and will be made again: " in said
    cache.unlink()
    assert load(shards).ids == ids
    assert len(list((cache / "iir_fast/shards").glob("*.npz"))) == 1
    assert not list(shards.rglob("*.part"))
    assert not list(cache.rglob("*.part"))
    forbid_reading(monkeypatch)
    assert load(shards).ids == ids


def fault(shards: Path) -> str:
    """What is said of the first shard."""
    with pytest.raises(ValueError, match="train/a") as caught:
        load(shards)
    return str(caught.value).replace(str(shards / "train") + "/", "")


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
def test_malformed_samples(shards: Path, write_shard: Write, members: list[tuple[str, bytes]], message: str) -> None:
    write_shard(shards / "train/a.tar", members)
    assert fault(shards) == message
    # The index is kept where the shards are sound and only belie classes.txt.
    assert (shards / "train/index.npz").exists() == ("below 3" in message)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"boxes": 5}', b'{"boxes": [5]}', b"\xff", b"[" * 100_000])
def test_malformed_json(shards: Path, write_shard: Write, content: bytes) -> None:
    write_shard(shards / "train/a.tar", sample("x", 0, ("x.json", content)))
    words = 'a JSON object is accepted, whose "boxes" is a list of [x0, y0, x1, y1]: '
    assert fault(shards).startswith(f"a.tar, x.json: {words}")


def test_shards_without_a_sample(shards: Path, write_shard: Write) -> None:
    (shards / "train/b.tar").unlink()
    write_shard(shards / "train/a.tar", [("README", b"")])
    with pytest.raises(ValueError, match=r"the shards in .*train hold no sample"):
        load(shards)


def test_damaged_shards(shards: Path, write_shard: Write) -> None:
    write_shard(shards / "train/a.tar", [*sample("x", 0), *sample("y", 1)])
    whole = (shards / "train/a.tar").read_bytes()
    with tarfile.open(shards / "train/a.tar") as tar:
        _, x_label, y, y_label = tar.getmembers()

    def damaged(content: bytes) -> str:
        (shards / "train/a.tar").write_bytes(content)
        return fault(shards)

    assert damaged(b"").startswith("a.tar is no tar without compression: empty file")
    assert damaged(b"x" * 2000).startswith("a.tar is no tar without compression: ")
    assert damaged(whole[: y.offset_data + 5]) == "a.tar is cut off within its member y.png"
    assert damaged(whole[: y.offset + 5]) == "a.tar is damaged or cut off after its member x.cls"
    assert damaged(whole[: y.offset]) == "a.tar is damaged or cut off after its member x.cls"
    assert damaged(whole[: y_label.offset_data + 512]) == "a.tar is damaged or cut off after its member y.cls"
    header = b"#" * 512
    assert damaged(whole[: x_label.offset] + header + whole[x_label.offset + 512 :]).endswith("member x.png")


def test_what_is_no_file_is_named_and_nothing_waits(shards: Path) -> None:
    file = shards / "train/a.tar"
    file.unlink()
    for put in (lambda: file.symlink_to("/dev/null"), lambda: os.mkfifo(file)):
        put()
        assert fault(shards) == "a.tar is not a regular file"
        file.unlink()


def test_without_webdataset(shards: Path, cub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = load(shards).ids
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    assert load(shards).ids == kept
    (shards / "train/index.npz").unlink()
    for call in (lambda: load(shards), lambda: pack_split(f"cub:{cub}", shards / "out")):
        with pytest.raises(ModuleNotFoundError, match=r'shards need webdataset: pip install "iir-fast\[shards\]"'):
            call()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"GNU.sparse.map": "0,x"}, "a.tar is damaged or cut off after its member x.cls"),
        ({"GNU.sparse.map": "0,3"}, "a.tar: its member y.png is sparse; a whole file is accepted"),
        ({"size": "-1"}, "a.tar is no tar without compression|a.tar is damaged"),
    ],
)
def test_headers_that_say_something_odd(shards: Path, header: dict[str, str], said: str) -> None:
    with tarfile.open(shards / "train/a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [*sample("x", 0), ("y.png", b"an image")]:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(content), header if name == "y.png" else {}
            tar.addfile(member, io.BytesIO(content))
    assert re.match(said, fault(shards))
