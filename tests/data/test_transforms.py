"""image_transform: size, range, normalization, flip."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from iir_fast.data import image_transform

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_right_size_keeps_the_pixels() -> None:
    image = noise(8, 8)
    tensor = image_transform(8, ZERO, ONE)(image)
    assert type(tensor) is torch.Tensor
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255)


def test_resizes_without_keeping_the_aspect() -> None:
    image = Image.new("RGB", (40, 10))
    image.paste((255, 255, 255), (20, 0, 40, 10))
    tensor = image_transform(8, ZERO, ONE)(image)
    assert tensor.shape == (3, 8, 8)
    assert tensor[:, :, :3].max() == 0
    assert tensor[:, :, 5:].min() == 1


def test_normalizes_each_channel() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    plain, normalized = image_transform(8, ZERO, ONE)(noise(8, 8)), image_transform(8, mean, std)(noise(8, 8))
    expected = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalized, expected)


def test_flip_follows_torchs_seed() -> None:
    image = noise(8, 8)
    straight, flip = image_transform(8, ZERO, ONE)(image), image_transform(8, ZERO, ONE, flip=True)
    torch.manual_seed(0)
    results = [flip(image) for _ in range(40)]
    mirrored = [bool(torch.equal(result, straight.flip(-1))) for result in results]
    assert all(torch.equal(r, straight) for r, m in zip(results, mirrored, strict=True) if not m)
    assert 8 <= sum(mirrored) <= 32
    torch.manual_seed(0)
    assert all(torch.equal(flip(image), result) for result in results)


def test_crops_are_parts_of_the_larger_image_and_follow_torchs_seed() -> None:
    image = noise(40, 30)
    whole, crop = image_transform(16, ZERO, ONE)(image), image_transform(14, ZERO, ONE, crop=True)
    windows = whole.unfold(1, 14, 1).unfold(2, 14, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    torch.manual_seed(0)
    results = [crop(image) for _ in range(40)]
    found = [[bool(torch.equal(window, result)) for window in windows] for result in results]
    assert all(sum(each) == 1 for each in found)
    assert len({each.index(True) for each in found}) == len(windows) == 9
    torch.manual_seed(0)
    assert all(torch.equal(crop(image), result) for result in results)


def test_can_be_sent_to_a_worker() -> None:
    transform = image_transform(4, ZERO, ONE, flip=True)
    assert pickle.loads(pickle.dumps(transform))(noise(8, 8)).shape == (3, 4, 4)


def test_errors() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        image_transform(0, ZERO, ONE)
    with pytest.raises(ValueError, match="std must be positive"):
        image_transform(8, ZERO, ZERO)
