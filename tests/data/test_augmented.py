"""AugmentedDataset: the same item for the same seed, epoch and index, whoever loads it."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from iir_fast.data import AugmentedDataset, ProceduralDataset, image_transform

TRANSFORM = image_transform(56, (0.0,) * 3, (1.0,) * 3, flip=True, crop=True)


def made(seed: int = 0, epoch: int = 0) -> AugmentedDataset:
    dataset = AugmentedDataset(ProceduralDataset("test", 12, transform=TRANSFORM), seed)
    dataset.set_epoch(epoch)
    return dataset


def test_workers_and_order_change_nothing():
    whole = torch.stack([made()[i][0] for i in range(12)])
    for workers in (0, 2):
        images, labels = next(iter(DataLoader(made(), batch_sampler=[[7, 3, 7, 11]], num_workers=workers)))
        assert torch.equal(images, whole[[7, 3, 7, 11]])
        assert labels.tolist() == [7, 3, 7, 1]


def test_seed_epoch_and_image_change_the_draw():
    images = [made(seed, epoch)[i][0] for seed, epoch, i in ((0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2))]
    assert not any(torch.equal(one, other) for k, one in enumerate(images) for other in images[:k])


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made()[0]
    assert torch.equal(torch.get_rng_state(), before)
