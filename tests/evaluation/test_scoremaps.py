"""Resizing, normalizing and writing of score maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iir_fast.evaluation import PROTOCOL_SIZE, resize_scoremap, save_scoremap


def random_maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SIDES = [*range(4, 65), 112, 224, 299, 384, 448]


@pytest.mark.parametrize("shape", [*((side, side) for side in SIDES), (9, 20), (300, 200)], ids=str)
def test_equals_opencv_bicubic_then_min_max(shape: tuple[int, int]) -> None:
    maps = random_maps(5, *shape) * 5 - 2
    resized = resize_scoremap(maps)
    assert resized.dtype == np.float64
    assert resized.shape == (5, PROTOCOL_SIZE, PROTOCOL_SIZE)
    for small, large in zip(maps.numpy(), resized, strict=True):
        expected = cv2.resize(small, (224, 224), interpolation=cv2.INTER_CUBIC)
        expected -= expected.min()
        expected /= expected.max()
        np.testing.assert_array_equal(large, expected)
        assert large.min() == 0
        assert large.max() == 1


def test_resize_comes_before_normalization() -> None:
    # Bicubic overshoots: were the order swapped, the maximum would exceed 1.
    small = torch.zeros(14, 14)
    small[5:9, 5:9] = 1
    assert resize_scoremap(small).max() == 1


def test_a_single_map_keeps_its_rank_and_a_batch_changes_no_bit() -> None:
    maps = random_maps(4, 14, 14)
    batch = resize_scoremap(maps)
    assert resize_scoremap(maps[2]).shape == (224, 224)
    np.testing.assert_array_equal(resize_scoremap(maps[2]), batch[2])
    assert resize_scoremap(maps[:0]).shape == (0, 224, 224)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_upcast_before_the_resize(dtype: torch.dtype) -> None:
    maps = random_maps(2, 14, 14).to(dtype).requires_grad_()
    np.testing.assert_array_equal(resize_scoremap(maps), resize_scoremap(maps.double()))


@pytest.mark.parametrize("value", [0.0, 0.3, -7.1, 1e30])
@pytest.mark.parametrize("shape", [(1, 1), (14, 14), (9, 20), (300, 300)])
def test_a_constant_map_becomes_zeros(value: float, shape: tuple[int, int]) -> None:
    assert not resize_scoremap(torch.full(shape, value, dtype=torch.float64)).any()


def test_a_map_whose_only_structure_falls_between_the_samples_becomes_zeros() -> None:
    small = torch.zeros(1000, 1000)
    small[4, 4] = 1  # bicubic sampling at 1000 / 224 reads pixels 0-3 and 5-8
    assert not resize_scoremap(small).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", [14, 224, 1000])
def test_a_map_that_is_not_finite_becomes_zeros_and_spares_its_neighbours(value: float, side: int) -> None:
    maps = random_maps(2, side, side)
    maps[0, 4, 4] = value
    resized = resize_scoremap(maps)
    assert not resized[0].any()
    np.testing.assert_array_equal(resized[1], resize_scoremap(maps[1]))


@pytest.mark.parametrize("shape", [(3,), (1, 1, 7, 7), (2, 0, 7)])
def test_other_shapes_and_dtypes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"maps is float32 \[.*\]; floating \[H, W\] or"):
        resize_scoremap(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"maps is complex64 \[7, 7\]"):
        resize_scoremap(torch.zeros(7, 7, dtype=torch.complex64))
    with pytest.raises(ValueError, match="maps is a ndarray; a floating torch tensor"):
        resize_scoremap(np.zeros((7, 7)))  # type: ignore[arg-type]


def test_a_file_keeps_the_image_extension(tmp_path: Path) -> None:
    scoremap = resize_scoremap(random_maps(14, 14))
    path = save_scoremap(tmp_path / "maps", "val2/0/0.jpeg", scoremap)
    assert path == tmp_path / "maps" / "val2" / "0" / "0.jpeg.npy"
    np.testing.assert_array_equal(np.load(path), scoremap)


@pytest.mark.parametrize(
    ("scoremap", "sentence"),
    [
        (np.zeros((14, 14)), r"float64 \[14, 14\]; float64 \[224, 224\] is accepted"),
        (np.zeros((224, 224), np.float32), "is float32"),
        (np.full((224, 224), 1.01), "from 1.01 to 1.01"),
        (np.full((224, 224), -0.01), "from -0.01"),
        (np.full((224, 224), np.nan), "nan"),
    ],
)
def test_a_malformed_map_is_not_written(tmp_path: Path, scoremap: NDArray[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"the score map of image 'a\.png' .*{sentence}"):
        save_scoremap(tmp_path, "a.png", scoremap)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image_id", ["../a.png", "/a.png", "x/../../a.png"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(ValueError, match="points outside"):
        save_scoremap(tmp_path, image_id, np.zeros((224, 224)))
