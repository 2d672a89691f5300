"""SubgroupSampler: composition of a batch, what an epoch guarantees, determinism, errors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from iir_fast import SubgroupSampler

# Sizes of the classes, P, Q, batches.
CASES = {
    "even": ([12] * 6, 3, 4, None),
    "even, remainder": ([400] * 10, 6, 8, None),
    "not a multiple of Q": ([5] * 10, 5, 2, None),
    "uneven, one pass": ([40, 30, 20, 10], 2, 4, 6),
    "all classes in every batch": ([9, 8, 12], 3, 4, 2),
    "long tail": ([300] + [10] * 5, 2, 2, None),
    "many passes": ([7, 9, 5, 6], 3, 2, 60),
    "classes smaller than Q": ([20, 3, 1, 9], 3, 4, None),
    "mostly tiny classes": ([8] + [1] * 20, 4, 4, 5),
    "one batch": ([3, 3], 2, 8, None),
}


def labels_of(sizes: list[int]) -> list[int]:
    """Labels 0, 2, 4 ... in an order that mixes the classes."""
    return [2 * k for i in range(max(sizes)) for k, size in enumerate(sizes) if i < size]


def passes_needed(sizes: list[int], p: int, q: int, batches: int) -> int:
    m = 1
    while sum(min(max(1, m * n // q), batches) for n in sizes) < p * batches:
        m += 1
    return m


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_guarantee(case: tuple[list[int], int, int, int | None], seed: int) -> None:
    sizes, p, q, batches = case
    labels = labels_of(sizes)
    sampler = SubgroupSampler(labels, p, q, seed=seed, batches=batches)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == (batches or max(1, len(labels) // (p * q)))
    for batch in drawn:
        groups = [batch[i : i + q] for i in range(0, p * q, q)]
        assert [len(group) for group in groups] == [q] * p
        owners = [{labels[i] for i in group} for group in groups]
        assert all(len(owner) == 1 for owner in owners), "the Q images of a class are contiguous"
        assert len(set.union(*owners)) == p, "P different classes"
        for group in groups:
            assert len(set(group)) == min(q, sizes[labels[group[0]] // 2])

    counts = Counter(i for batch in drawn for i in batch)
    m = passes_needed(sizes, p, q, len(sampler))
    for k, size in enumerate(sizes):
        of_class = [counts[i] for i, label in enumerate(labels) if label == 2 * k]
        assert max(of_class) - min(of_class) <= 1
        if size >= q:
            assert max(of_class) <= m


def test_even_classes_lose_only_what_the_batch_size_demands() -> None:
    labels = labels_of([400] * 10)
    drawn = [i for batch in SubgroupSampler(labels, 6, 8) for i in batch]
    assert len(drawn) == len(set(drawn)) == 4000 - 4000 % 48


def test_usage_follows_what_remains() -> None:
    labels = labels_of([400, 200, 200])
    counts = Counter(labels[i] for batch in SubgroupSampler(labels, 1, 4, batches=100) for i in batch)
    assert 140 <= counts[0] <= 260, "half the images, half the draws"


def test_same_seed_and_epoch_same_batches() -> None:
    labels = labels_of([30, 20, 25])
    sampler = SubgroupSampler(labels, 2, 4, seed=3)
    first = list(sampler)
    assert list(sampler) == first == list(SubgroupSampler(labels, 2, 4, seed=3))
    assert list(SubgroupSampler(labels, 2, 4, seed=4)) != first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_batches_of_one_process(case: tuple[list[int], int, int, int | None], ranks: int) -> None:
    sizes, p, q, batches = case
    if p * q % ranks:
        pytest.skip("this batch cannot be shared evenly")
    labels = labels_of(sizes)
    samplers = [SubgroupSampler(labels, p, q, 5, batches, rank, ranks) for rank in range(ranks)]
    whole = SubgroupSampler(labels, p, q, 5, batches)
    for sampler in (*samplers, whole):
        sampler.set_epoch(2)
    shares = list(zip(*samplers, strict=True))
    assert [[image for share in batch for image in share] for batch in shares] == list(whole)
    assert {len(share) for batch in shares for share in batch} == {p * q // ranks}


def test_goes_into_a_data_loader() -> None:
    labels = labels_of([4, 4, 4])
    data = TensorDataset(torch.tensor(labels))
    (batch,) = next(iter(DataLoader(data, batch_sampler=SubgroupSampler(labels, 2, 2))))
    assert batch[0] == batch[1] != batch[2] == batch[3]


def test_lightning_tells_it_the_epoch() -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed (extra: examples)")
    drawn: list[list[int]] = []

    class Recorder(lightning.LightningModule):  # type: ignore[misc, name-defined]
        automatic_optimization = False

        def training_step(self, batch: list[torch.Tensor], batch_index: int) -> None:
            drawn.append(batch[0].tolist())

        def configure_optimizers(self) -> None:
            return None

    labels = labels_of([8, 8, 8])
    loader = DataLoader(TensorDataset(torch.arange(24)), batch_sampler=SubgroupSampler(labels, 2, 2))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(accelerator="cpu", max_epochs=3, enable_model_summary=False, **options).fit(Recorder(), loader)
    expected = SubgroupSampler(labels, 2, 2)
    epochs = []
    for epoch in range(3):
        expected.set_epoch(epoch)
        epochs.append(list(expected))
    assert drawn == [batch for epoch in epochs for batch in epoch]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes_per_batch": 4}, "classes_per_batch is 4, but labels hold 3 classes"),
        ({"classes_per_batch": 0}, "classes_per_batch must be at least 1, got 0"),
        ({"images_per_class": 0}, "images_per_class must be at least 1, got 0"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"labels": []}, "labels hold 0 classes"),
        ({"rank": 2, "ranks": 2}, r"rank must lie in \[0, ranks\), got 2 of 2"),
        ({"ranks": 4}, r"must be a multiple of ranks, got 2 \* 1 and 4"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {"labels": [0, 1, 2], "classes_per_batch": 2, "images_per_class": 1}
    with pytest.raises(ValueError, match=message):
        SubgroupSampler(**(usual | arguments))  # type: ignore[arg-type]


def test_negative_epoch() -> None:
    with pytest.raises(ValueError, match="epoch must not be negative, got -2"):
        SubgroupSampler([0, 1], 2, 1).set_epoch(-2)
