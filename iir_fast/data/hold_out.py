"""A part of each class put aside to test on, of images that come without splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace

from iir_fast.data.listing import Listing

SHARE = 0.2
"""Of the images of a class that are held out."""
PARTS = ("train", "test")


def hold_out(whole: Listing, split: str, seed: int) -> Listing:
    """Take the part "train" or "test" of a listing; FileNotFoundError: another is asked for.

    A class of two images or more has at least one of them held out as "test"; of one image none. Which ones, the paths
    and the seed decide, on any machine: a file that is added moves few of the others.
    """
    if split not in PARTS:
        accepted = "it holds images without splits, of which train and test are made"
        raise FileNotFoundError(f"{whole.root} has no split {split!r}; {accepted}")
    members = defaultdict(list)
    for path, label in zip(whole.ids, whole.labels, strict=True):
        members[label].append(path)
    held_out = {path for paths in members.values() for path in _chosen(paths, seed)}
    kept = [i for i, path in enumerate(whole.ids) if (path in held_out) == (split == "test")]
    ids = tuple(whole.ids[i] for i in kept)
    share = f"{SHARE:.0%} of each class, {len(held_out):,} of {len(whole.ids):,} images"
    return replace(
        whole,
        split=split,
        ids=ids,
        labels=tuple(whole.labels[i] for i in kept),
        boxes={path: whole.boxes[path] for path in ids if path in whole.boxes},
        masks={path: whole.masks[path] for path in ids if path in whole.masks},
        remarks=(*whole.remarks, f"{whole.root} has no splits: {share}, are held out as test (seed {seed})."),
    )


def _chosen(paths: list[str], seed: int) -> list[str]:
    def draw(path: str) -> bytes:
        return hashlib.sha256(f"{seed} {path}".encode(errors="surrogateescape")).digest()

    return sorted(paths, key=draw)[: max(1, round(SHARE * len(paths))) if len(paths) > 1 else 0]
