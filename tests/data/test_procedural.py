"""ProceduralDataset: pinned pixels, exact boxes, independence of images, recipe."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iir_fast.data import ProceduralDataset, ProceduralRecipe


@pytest.fixture(scope="module")
def data() -> ProceduralDataset:
    return ProceduralDataset("train", 100)


def pixels(data: ProceduralDataset, i: int) -> NDArray[np.uint8]:
    return np.asarray(data.image(i))


@pytest.mark.parametrize(
    ("split", "seed", "i", "digest"),
    [
        ("train", 0, 0, "b774a423325166cb"),
        ("train", 0, 39, "e7eefce9972d6fc5"),
        ("test", 0, 3, "42f0404b04ea2eed"),
        ("test", 7, 38, "bfe911342ca5a5bb"),
    ],
)
def test_pinned_pixels(split: str, seed: int, i: int, digest: str) -> None:
    data = ProceduralDataset(split, 40, seed=seed)  # type: ignore[arg-type]
    content = data.image(i).tobytes() + data.ground_truth(i).masks[0].tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_sizes_names_and_labels(data: ProceduralDataset) -> None:
    assert (len(ProceduralDataset("train")), len(ProceduralDataset("test"))) == (4000, 800)
    assert len(data) == len(data.labels) == len(set(data.ids)) == 100
    assert len(data.classes) == 10
    assert data.labels == tuple(range(10)) * 10
    assert (data.split, data.ids[12]) == ("train", "train/00012")
    assert data.image(0).mode == "RGB"


def test_item_is_transformed_image_and_label(data: ProceduralDataset) -> None:
    tensor, label = data[13]
    assert label == 3
    torch.testing.assert_close(tensor, torch.from_numpy(pixels(data, 13).copy()).permute(2, 0, 1) / 127.5 - 1)
    data = ProceduralDataset("train", 2, transform=lambda image: torch.tensor(image.size))
    assert data[1][0].tolist() == [64, 64]


def test_box_is_the_extent_of_the_mask(data: ProceduralDataset) -> None:
    for i in range(len(data)):
        truth = data.ground_truth(i)
        assert truth.size == (64, 64)
        assert truth.boxes.dtype == np.float64
        ((x0, y0, x1, y1),) = truth.boxes.astype(int)
        (mask,) = truth.masks
        assert mask.dtype == np.uint8
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum(), "nothing of the mask outside the box"
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1])), "the box is tight"


def test_head_lies_in_the_mask_and_is_a_small_part_of_it(data: ProceduralDataset) -> None:
    shares = []
    for i in range(len(data)):
        black_or_white = np.isin(pixels(data, i), (0, 255)).all(axis=2)
        mask = data.ground_truth(i).masks[0] != 0
        shares.append((black_or_white & mask).sum() / mask.sum())
    assert min(shares) > 0.08
    assert max(shares) < 0.5


def test_image_depends_on_its_own_index_only(data: ProceduralDataset) -> None:
    for size in (1, 33, 50):
        short = ProceduralDataset("train", size)
        assert np.array_equal(pixels(short, size - 1), pixels(data, size - 1))


def test_splits_and_seeds_differ(data: ProceduralDataset) -> None:
    others = [ProceduralDataset("test", 100), ProceduralDataset("train", 100, seed=1)]
    digests = {pixels(some, i).tobytes() for some in (data, *others) for i in range(100)}
    assert len(digests) == 300


def test_fingerprint_names_the_data(data: ProceduralDataset) -> None:
    assert data.fingerprint == ProceduralDataset("train", 100).fingerprint
    others = [
        ProceduralDataset("train", 99),
        ProceduralDataset("test", 100),
        ProceduralDataset("train", 100, seed=1),
        ProceduralDataset("train", 100, recipe=ProceduralRecipe(hue_noise=0.1)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_recipe_changes_only_what_it_names(data: ProceduralDataset) -> None:
    masks = np.stack([data.ground_truth(i).masks[0] for i in range(20)]) != 0
    images = np.stack([pixels(data, i) for i in range(20)])

    def changed(recipe: ProceduralRecipe) -> NDArray[np.bool_]:
        other = ProceduralDataset("train", 20, recipe=recipe)
        for i in range(20):
            assert np.array_equal(other.ground_truth(i).masks[0], data.ground_truth(i).masks[0])
        different: NDArray[np.bool_] = (np.stack([pixels(other, i) for i in range(20)]) != images).any(axis=3)
        return different

    head = np.isin(images, (0, 255)).all(axis=3) & masks
    hue = changed(ProceduralRecipe(hue_noise=0))
    assert hue.any(axis=(1, 2)).all()
    assert not hue[~masks | head].any()
    assert np.array_equal(changed(ProceduralRecipe(head_contrast=0)), head)
    for clutter in (0.0, 2.0):
        background = changed(ProceduralRecipe(clutter=clutter))
        assert background[~masks].mean() > 0.9
        assert not background[masks].any()


def test_without_noise_the_hue_is_the_class() -> None:
    data = ProceduralDataset("train", 10, recipe=ProceduralRecipe(hue_noise=0, head_contrast=0, clutter=0))
    for i in range(10):
        hsv = np.asarray(data.image(i).convert("HSV"))
        body = hsv[hsv[..., 1] > 0]
        error = (body[:, 0] / 256 - i / 10 + 0.5) % 1 - 0.5
        assert np.abs(error).max() < 0.015


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split must be one of train, test, got 'val'"),
        ({"split": "train", "size_of_split": 0}, "size_of_split must be at least 1, got 0"),
        ({"split": "train", "seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProceduralDataset(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [{"hue_noise": -0.1}, {"head_contrast": 1.5}, {"clutter": -1.0}])
def test_recipe_errors(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        ProceduralRecipe(**field)
