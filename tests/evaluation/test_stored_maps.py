"""Score maps of other programs: every kind that is taken, and every kind of file that is none."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iir_fast.evaluation import StoredMaps, resize_scoremap
from iir_fast.evaluation.arrays import read_array, read_header
from iir_fast.evaluation.stored_maps import listed

IDS = ("a.jpg", "val2/0/0.jpeg")


def some_maps(*shape: int) -> NDArray[np.float64]:
    """Two maps of multiples of 1/255, so that every dtype holds the same."""
    return np.random.default_rng(0).integers(0, 256, (2, *shape)) / 255


def store(root: Path, maps: NDArray[Any], suffix: str = ".npy") -> Path:
    for image_id, each in zip(IDS, maps, strict=True):
        file = root / f"{image_id}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(file, each)
        else:
            np.savez_compressed(file, each)
    return root


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", ">f2"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_floats_of_any_width_and_byte_order_are_taken_as_they_are(tmp_path: Path, dtype: str, suffix: str) -> None:
    stored = some_maps(224, 224).astype(dtype)
    maps = StoredMaps(store(tmp_path, stored, suffix), IDS)
    assert maps[0].dtype == np.float64
    assert maps[0].dtype.isnative
    np.testing.assert_array_equal(np.stack([maps[0], maps[1]]), stored.astype(np.float64))


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "i8"])
def test_integers_are_taken_with_a_scale_or_stretched(tmp_path: Path, dtype: str) -> None:
    exact = some_maps(224, 224)
    store(tmp_path, (exact * 255).round().astype(dtype))
    with pytest.raises(
        ValueError, match=r"2 broken: .*a\.jpg\.npy is u?int\d+ \[224, 224\]; integers are accepted with"
    ):
        StoredMaps(tmp_path, IDS)
    np.testing.assert_array_equal(StoredMaps(tmp_path, IDS, scale=255)[1], exact[1])
    np.testing.assert_array_equal(StoredMaps(store(tmp_path / "half", exact / 2), IDS, scale=0.5)[1], exact[1])
    stretched = StoredMaps(tmp_path, IDS, normalize=True)[1]
    np.testing.assert_array_equal(stretched, resize_scoremap(torch.from_numpy((exact[1] * 255).round())))


def test_maps_are_stretched_only_if_asked_to(tmp_path: Path) -> None:
    stored = 0.2 + 0.5 * some_maps(224, 224)
    store(tmp_path, stored)
    np.testing.assert_array_equal(StoredMaps(tmp_path, IDS)[0], stored[0])
    stretched = StoredMaps(tmp_path, IDS, normalize=True)[0]
    assert (stretched.min(), stretched.max()) == (0, 1)
    store(tmp_path, 3 * stored)
    with pytest.raises(ValueError, match=r"a\.jpg\.npy holds values from 0\.6\d* to 2\.\d*; values in \[0, 1\]"):
        _ = StoredMaps(tmp_path, IDS)[0]


@pytest.mark.parametrize("shape", [(7, 7), (14, 20), (224, 224), (300, 260)], ids=str)
def test_maps_of_any_size_are_resized_as_the_package_resizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    stored = (5 * some_maps(*shape) - 2).astype(np.float32)
    expected = resize_scoremap(torch.from_numpy(stored))
    np.testing.assert_array_equal(StoredMaps(store(tmp_path, stored), IDS, resize=True)[1], expected[1])
    for suffix in (".npy", ".npz"):
        file = tmp_path / f"all{suffix}"
        np.save(file, stored) if suffix == ".npy" else np.savez(file, stored)
        stacked = StoredMaps(file, IDS, resize=True)
        np.testing.assert_array_equal(np.stack([stacked[0], stacked[1]]), expected)
    if shape != (224, 224):
        with pytest.raises(ValueError, match=r"is float32 .*; \[224, 224\] is accepted, any \[H, W\] with resize"):
            StoredMaps(tmp_path, IDS)


def test_the_maps_of_a_stack_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    """All of them may not fit into memory."""
    np.save(tmp_path / "all.npy", some_maps(224, 224))
    maps = StoredMaps(tmp_path / "all.npy", IDS)
    np.lib.format.open_memmap(tmp_path / "all.npy", "r+")[1] = 0.25
    assert (maps[1] == 0.25).all()


def test_a_stack_in_any_order_of_memory(tmp_path: Path) -> None:
    stored = np.asfortranarray(some_maps(224, 224).astype(">f4"))
    np.save(tmp_path / "all.npy", stored)
    np.testing.assert_array_equal(StoredMaps(tmp_path / "all.npy", IDS)[1], stored[1].astype(np.float64))


def test_both_versions_of_the_format_are_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0)):
        with (tmp_path / "a.npy").open("wb") as stream:
            np.lib.format.write_array(stream, np.arange(3.0), version)
        assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("stack", "sentence"),
    [
        (np.zeros((3, 224, 224)), r"is float64 \[3, 224, 224\]; \[2, H, W\] is accepted, a map for each image"),
        (np.zeros((224, 224)), r"is float64 \[224, 224\]; \[2, H, W\] is accepted"),
        (np.zeros((2, 224, 0)), r"each map in .*all\.npy is float64 \[224, 0\]; \[224, 224\] is accepted"),
        (np.zeros((2, 224, 224), np.uint8), r"each map in .*all\.npy is uint8 \[224, 224\]; integers"),
    ],
)
def test_another_stack_is_refused(tmp_path: Path, stack: NDArray[Any], sentence: str) -> None:
    np.save(tmp_path / "all.npy", stack)
    with pytest.raises(ValueError, match=sentence):
        StoredMaps(tmp_path / "all.npy", IDS)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    ids = [f"{i:02d}.jpg" for i in range(60)]
    for i in range(25, 60):
        np.save(tmp_path / f"{i:02d}.jpg.npy", np.eye(224) if i < 30 else np.eye(14))
    np.save(tmp_path / "other.jpg.npy", np.eye(224))
    (tmp_path / "notes.txt").write_text("no score map")
    with pytest.raises(ValueError, match="score maps of 60 images") as raised:
        StoredMaps(tmp_path, ids)
    said = str(raised.value)
    assert f"25 missing: {tmp_path}/00.jpg.npy, " in said
    assert f"{tmp_path}/19.jpg.npy, and 5 more; 30 broken: {tmp_path}/30.jpg.npy is float64 [14, 14]; [224, " in said
    assert "20.jpg" not in said
    assert "50.jpg" not in said
    assert said.endswith(f", and 10 more; 1 of no image: {tmp_path}/other.jpg.npy.")


def test_with_resize_maps_of_any_two_sides_are_taken(tmp_path: Path) -> None:
    assert StoredMaps(store(tmp_path, np.random.default_rng(0).random((2, 1, 5))), IDS, resize=True)[0].max() == 1
    for shape in ((5,), (2, 5, 5), (0, 5), (5, 0)):
        store(tmp_path, np.zeros((2, *shape)))
        with pytest.raises(ValueError, match=rf"float64 {re.escape(str(list(shape)))}; \[H, W\] is accepted\W"):
            StoredMaps(tmp_path, IDS, resize=True)


def test_twenty_of_a_kind_are_all_named() -> None:
    assert listed({"odd": ["x"] * 20, "even": []}) == f"20 odd: {', '.join(['x'] * 20)}"


def test_files_of_no_image_are_told_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, some_maps(224, 224))
    np.savez(tmp_path / "a.jpg.npz", np.eye(224))
    maps = StoredMaps(tmp_path, IDS)
    np.testing.assert_array_equal(maps[0], some_maps(224, 224)[0])
    assert f"1 of no image: {tmp_path}/a.jpg.npz" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"resize": True}, {"normalize": True}], ids=str)
def test_what_is_not_finite_is_refused_even_where_it_would_become_zeros(
    tmp_path: Path, value: float, options: dict[str, bool]
) -> None:
    stored = some_maps(224, 224)
    stored[1, 5, 5] = value
    maps = StoredMaps(store(tmp_path, stored), IDS, **options)
    assert maps[0].max() == 1
    with pytest.raises(ValueError, match=r"val2/0/0\.jpeg\.npy holds NaN or an infinity"):
        _ = maps[1]


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_is_positive(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ValueError, match="a positive number is accepted"):
        StoredMaps(tmp_path, IDS, scale=scale)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        StoredMaps(tmp_path / "nowhere", IDS)


# --- files that are no arrays ----------------------------------------------------------------------------------------


def header(shape: str, descr: str = "'<f8'", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


def object_array() -> bytes:
    np.save(stream := io.BytesIO(), np.array([Trap()], object), allow_pickle=True)
    return stream.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


BAD = {
    "empty": (b"", "EOF"),
    "text": (b"0.1,0.2\n", "magic string"),
    "npz named npy": (zipped(("arr_0.npy", header("(1,)") + bytes(8))), "magic string"),
    "pickle": (pickle.dumps(Trap()), "magic string"),
    "objects": (object_array(), "it holds object, and integers or float16"),
    "complex": (header("(1,)", "'<c16'") + bytes(16), "it holds complex128"),
    "booleans": (header("(1,)", "'|b1'") + bytes(1), "it holds bool"),
    "strings": (header("(1,)", "'<U2'") + bytes(8), "it holds str"),
    "records": (header("(1,)", "[('x', '<f8')]") + bytes(8), "it holds void"),
    "long double": (header("(1,)", "'<f16'") + bytes(16), "it holds (float128|longdouble)"),
    "huge": (header("(100000000000000,)") + bytes(64), r"its header says float64 \[100000000000000\], .* it has"),
    "beyond 64 bits": (header("(4294967296, 4294967296, 4)") + bytes(64), "its header says float64"),
    "negative": (header("(-1,)") + bytes(8), r"its header says float64 \[-1\]"),
    "short": (header("(224, 224)") + bytes(8), "its header says"),
    "long": (header("(1,)") + bytes(80), "its header says"),
    "nested": (header("(" * 900 + ")" * 900) + bytes(8), "Cannot parse header"),
    "wide": (header("(1,)" + 20_000 * " ") + bytes(8), r"Header info length \(\d+\) is large"),
    "unfinished": (header("(1,")[:-20], "EOF"),
    "later version": (header("(1,)", version=b"\x03\x00") + bytes(8), "version 3.0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_array_of_numbers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    content, sentence = BAD[kind]
    monkeypatch.chdir(tmp_path)
    (file := tmp_path / "bad.npy").write_bytes(content)
    for read in (read_header, read_array):
        with pytest.raises(
            ValueError, match=rf"bad\.npy cannot be read as an array of numbers: .*{sentence}"
        ) as raised:
            read(file)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500
    assert [each.name for each in tmp_path.iterdir()] == ["bad.npy"]


def claiming(size: int) -> bytes:
    """A zip file whose directory claims that its member has so many bytes."""
    content = bytearray(zipped(("a.npy", header(f"({(size - 200) // 8},)"))))
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no zip", "not a zip file"),
        (zipped(), "it holds 0 arrays, and one is accepted"),
        (zipped(("a.npy", b""), ("b.npy", b"")), "it holds 2 arrays"),
        (zipped(("a.npy", header("(100000000000000,)"))), r"its header says float64 \[100000000000000\]"),
        (zipped(("a.npy", object_array())), "it holds object"),
        (claiming(4_000_000_000), "it cannot hold the 4,000,000,000 bytes it claims"),
    ],
)
def test_a_zip_file_that_is_no_array_of_numbers_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (file := tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.npz cannot be read as an array of numbers: .*{sentence}"):
        read_header(file)


def test_damage_further_on_is_named_when_it_is_read(tmp_path: Path) -> None:
    np.savez(file := tmp_path / "a.npz", np.arange(10_000.0))
    content = bytearray(file.read_bytes())
    content[-300] ^= 255
    file.write_bytes(content)
    assert read_header(file).shape == (10_000,)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as an array of numbers: Bad CRC-32"):
        read_array(file)


def test_pipes_and_folders_are_named_and_nothing_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg.npy")
    (tmp_path / "val2/0/0.jpeg.npy").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"2 broken: .*a\.jpg\.npy is not a regular file, .*0\.jpeg\.npy is not a"):
        StoredMaps(tmp_path, IDS)
    with pytest.raises(ValueError, match=r"a\.jpg\.npy is not a regular file"):
        StoredMaps(tmp_path / "a.jpg.npy", IDS)
