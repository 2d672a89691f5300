"""What is held out of images that come without splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from iir_fast.data.hold_out import hold_out
from iir_fast.data.listing import ListedBox, ListedMasks, Listing

COUNTS = {"ant": 30, "bee": 7, "cow": 2, "dog": 1}


PINNED = (1, 6, 8, 18, 20, 27)
"""Ants that seed 0 holds out."""


def whole(**changes: int) -> Listing:
    named = [(f"{name}/{i}.jpg", label) for label, (name, n) in enumerate((COUNTS | changes).items()) for i in range(n)]
    ids = tuple(path for path, _ in named)
    return Listing(
        root=Path("photos"),
        split="",
        classes=tuple(COUNTS),
        ids=ids,
        labels=tuple(label for _, label in named),
        boxes={path: [ListedBox(path, (0, 0, 1, 1))] for path in ids},
        masks={path: ListedMasks((f"masks/{path}",)) for path in ids},
    )


def test_a_fifth_of_each_class_is_held_out_and_nothing_is_in_both_parts():
    train, test = (hold_out(whole(), split, seed=0) for split in ("train", "test"))
    assert [train.labels.count(k) for k in range(4)] == [24, 6, 1, 1]
    assert [test.labels.count(k) for k in range(4)] == [6, 1, 1, 0]
    assert sorted(train.ids + test.ids) == sorted(whole().ids)
    assert (train.split, test.split, test.classes) == ("train", "test", tuple(COUNTS))
    for part in (train, test):
        assert tuple(part.boxes) == tuple(part.masks) == part.ids
        assert all(COUNTS.keys() >= {path.split("/")[0]} for path in part.ids)
        assert [part.classes[label] for label in part.labels] == [path.split("/")[0] for path in part.ids]
    said = "photos has no splits: 20% of each class, 8 of 40 images, are held out as test (seed 0)."
    assert train.remarks == test.remarks == (said,)


def test_paths_and_seed_alone_decide():
    chosen = hold_out(whole(), "test", seed=0).ids
    assert hold_out(whole(), "test", seed=0).ids == chosen
    assert hold_out(whole(), "test", seed=1).ids != chosen
    # Pinned: the same on every machine and in every version.
    assert [path for path in chosen if path.startswith("ant")] == [f"ant/{i}.jpg" for i in PINNED]
    more = hold_out(whole(ant=31), "test", seed=0).ids
    assert len(set(chosen) - set(more)) <= 1


def test_another_split_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"photos has no split 'val'; it holds images without splits"):
        hold_out(whole(), "val", seed=0)
