"""Small faithful copies of the data sets' layouts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (20, 12)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, which no test shares with another or with the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _save(file: Path, pixels: np.ndarray | None = None) -> None:
    """An image of 20 x 12 pixels that depends on its name, or the given grey one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = list(file.name.encode())
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise if pixels is None else pixels).save(file)


def _write(folder: Path, name: str, lines: Sequence[str]) -> None:
    # The protocol's files end without a newline, and are empty where nothing is known.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines), encoding="utf-8")


def _metadata(root: Path, data: str, split: str, labels: dict[str, int], sizes: bool = True) -> Path:
    folder = root / "metadata" / data / split
    _write(folder, "image_ids.txt", list(labels))
    _write(folder, "class_labels.txt", [f"{path},{label}" for path, label in labels.items()])
    _write(folder, "image_sizes.txt", [f"{path},20,12" for path in labels] if sizes else [])
    _write(folder, "localization.txt", [])
    for path in labels:
        _save(root / data / path)
    return folder


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """CUB-200-2011 with 2 classes: 6 images to train on, 2 to validate on, 4 to test on, one box each."""
    root = tmp_path / "wsol"
    birds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        labels = {f"{bird}/{split}_{i}.jpg": k for k, bird in enumerate(birds) for i in range(count)}
        folder = _metadata(root, "CUB", split, labels)
        # x1 = x + w: a bird that fills the image ends at its width.
        _write(folder, "localization.txt", [f"{path},2,3,20,{4 + k}" for path, k in labels.items()])
    return root


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """ILSVRC with 11 classes, so that val2/10 sorts before val2/2; boxes for val and test; a proxy of 11 images."""
    root = tmp_path / "wsol"
    wnids = [f"n{10 + k:08d}" for k in range(11)]
    train = {f"train/{wnid}/{wnid}_{i}.JPEG": k for k, wnid in enumerate(wnids) for i in range(2)}
    folder = _metadata(root, "ILSVRC", "train", train, sizes=False)
    _write(folder, "image_ids_proxy.txt", [path for path in train if path.endswith("_1.JPEG")])
    val = {f"val2/{k}/0.jpeg": int(k) for k in sorted(map(str, range(11)))}
    folder = _metadata(root, "ILSVRC", "val", val)
    _write(folder, "localization.txt", [f"{path},0,0,5,5" for path in val])
    test = {f"val/ILSVRC2012_val_{i:08d}.JPEG": (7 * i) % 11 for i in range(1, 12)}
    folder = _metadata(root, "ILSVRC", "test", test)
    boxes = [f"{path},{x},0,{x + 4},11" for path in test for x in (0, 9)]
    _write(folder, "localization.txt", [*boxes, "val/ILSVRC2012_val_00000001.JPEG,7,7,7,7"])
    return root


@pytest.fixture
def openimages(tmp_path: Path) -> Path:
    """OpenImages30k with 2 classes: no sizes stated, masks at twice the images' resolution, one ignore region."""
    root = tmp_path / "wsol"
    mids = ("01226z", "0138tl")
    for split, count in (("train", 2), ("val", 1), ("test", 2)):
        labels = {f"{split}/{mid}/{i}.jpg": k for k, mid in enumerate(mids) for i in range(count)}
        folder = _metadata(root, "OpenImages", split, labels, sizes=False)
        lines = []
        for path in labels if split != "train" else ():
            stem = path.removesuffix(".jpg")
            for number, columns in ((1, slice(0, 10)), (2, slice(30, 40))):
                mask = np.zeros((24, 40), np.uint8)
                mask[:, columns] = 255
                _save(root / "OpenImages" / f"{stem}_m{number}.png", mask)
            _save(root / "OpenImages" / f"{stem}_ignore.png", np.full((12, 20), 255, np.uint8))
            lines += [f"{path},{stem}_m1.png,{stem}_ignore.png", f"{path},{stem}_m2.png,"]
        _write(folder, "localization.txt", lines)
    return root


@pytest.fixture
def pet(tmp_path: Path) -> Path:
    """Oxford-IIIT Pet with 2 breeds, 3 images each to train on, 1 each to test on."""
    root = tmp_path / "pets"
    folder = root / "oxford-iiit-pet"
    trimap = np.full((12, 20), 2, np.uint8)
    trimap[3:9, 4:12] = 3
    trimap[4:8, 5:11] = 1
    for split, numbers in (("trainval", (1, 2, 3)), ("test", (101,))):
        names = [f"{breed}_{i}" for breed in ("Abyssinian", "american_bulldog") for i in numbers]
        lines = [f"{name} {k} {k} 1" for name in names for k in [1 + name.startswith("american")]]
        _write(folder / "annotations", f"{split}.txt", lines)
        for name in names:
            _save(folder / "images" / f"{name}.jpg")
            _save(folder / "annotations/trimaps" / f"{name}.png", trimap)
    return root


@pytest.fixture
def change_line() -> Callable[[Path, int, str | None], None]:
    """Replaces a line of a text file, numbered from 1, or removes it."""

    def change(file: Path, number: int, text: str | None) -> None:
        lines = file.read_text(encoding="utf-8").splitlines()
        lines[number - 1 : number] = [] if text is None else [text]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    return change


Members = list[tuple[str, bytes]]


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def _sample(key: str, label: int, *others: tuple[str, bytes]) -> Members:
    return [(f"{key}.png", _picture(label)), (f"{key}.cls", b"%d\n" % label), *others]


def _write_shard(file: Path, members: Members) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def picture() -> Callable[[int], bytes]:
    """The bytes of a PNG of 20 x 12 pixels, by its seed."""
    return _picture


@pytest.fixture
def sample() -> Callable[..., Members]:
    """Members of a shard that make one sample, of a key, a label that is the picture's seed, and any others."""
    return _sample


@pytest.fixture
def write_shard() -> Callable[[Path, Members], None]:
    """Writes a shard of these members."""
    return _write_shard


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four samples of three classes in two shards, made by hand."""
    boxes = json.dumps({"boxes": [[0, 1, 20, 12], [2.5, 3, 4, 5]], "by": "hand"}).encode()
    root = tmp_path / "shards"
    first = [*_sample("x/1", 2, ("x/1.json", boxes), ("x/1.txt", b"text")), *_sample("x/2", 0)]
    _write_shard(root / "train/a.tar", first)
    _write_shard(root / "train/b.tar", [("README", b"no sample"), *_sample("x/1", 1), *_sample("y", 2)])
    (root / "classes.txt").write_text("ant\nbee\ncat\n")
    return root
