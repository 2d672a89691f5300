"""Batches of same-class subgroups: P classes with Q images each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch.utils.data import Sampler


class SubgroupSampler(Sampler[list[int]]):
    """Draws batches of P different classes with Q images each, for the inter-sample criterion.

    The Q images of a class stand next to each other in the batch. An epoch is `batches` batches (T). In it a class of
    n images gives ``max(1, n // Q)`` subgroups, drawn at random, a class the likelier the more of its subgroups are
    left. What is guaranteed:

    - Where this fills the epoch, that is ``sum_k min(max(1, n_k // Q), T) >= T * P``, no image of a class with at least
      Q images is drawn twice. With the default T this holds for even classes of a multiple of Q images, and fewer than
      P * Q images of the whole data set are left out.
    - Otherwise classes give more, those first whose images are then drawn least often: if ``max(1, m * n // Q)``
      subgroups fill the epoch, no image of a class with at least Q images is drawn more than m times.
    - A class deals out all of its images before it deals one out again, in a new order: the counts of two images of
      a class differ by one at most. Its images in one batch are different ones, unless it has fewer than Q.

    The same seed, epoch and labels give the same batches. Call ``set_epoch`` before every epoch.

    Where several processes train together each draws the batches of all, and yields its share: the `rank`-th of
    `ranks` equal parts of every batch. Together they see what one process would, and all that is said above holds for
    them together.

    Args:
        labels: one class per image.
        classes_per_batch: P.
        images_per_class: Q.
        seed: not negative.
        batches: batches per epoch; by default ``len(labels) // (P * Q)``, but at least 1.
        rank: number of this process, in [0, ranks).
        ranks: how many processes share every batch; P * Q must be a multiple of it.

    Raises:
        ValueError: P, Q, `batches` or `ranks` is below 1, P exceeds the number of classes that occur, `seed` is
            negative, `rank` is none of the ranks, or a batch cannot be shared evenly.
    """

    def __init__(
        self,
        labels: Sequence[int],
        classes_per_batch: int,
        images_per_class: int,
        seed: int = 0,
        batches: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        counts = {"classes_per_batch": classes_per_batch, "images_per_class": images_per_class, "batches": batches}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if not 0 <= rank < ranks:
            raise ValueError(f"rank must lie in [0, ranks), got {rank} of {ranks}")
        images = classes_per_batch * images_per_class
        if images % ranks:
            raise ValueError(
                f"classes_per_batch * images_per_class must be a multiple of ranks, "
                f"got {classes_per_batch} * {images_per_class} and {ranks}"
            )
        values = np.asarray(labels)
        self._members = [np.flatnonzero(values == label) for label in np.unique(values)]
        if classes_per_batch > len(self._members):
            raise ValueError(f"classes_per_batch is {classes_per_batch}, but labels hold {len(self._members)} classes")
        self._classes_per_batch = classes_per_batch
        self._images_per_class = images_per_class
        self._seed = seed
        self._share = slice(rank * images // ranks, (rank + 1) * images // ranks)
        self._epoch = 0
        self._batches = batches or max(1, len(values) // images)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (not negative) that the next iteration draws."""
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        self._epoch = epoch

    @property
    def images_per_batch(self) -> int:
        """Images of a batch, of all processes together."""
        return self._classes_per_batch * self._images_per_class

    @property
    def sampler(self) -> SubgroupSampler:
        """Itself: Lightning tells the epoch to a batch sampler's `sampler`, not to the batch sampler."""
        return self

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = default_rng((self._seed, self._epoch))
        decks = [_Deck(members, rng) for members in self._members]
        left = self._allowance()
        for batches_left in range(self._batches, 0, -1):
            # Smallest of exponential waiting times: a draw without replacement, by weight. A class that has to be in
            # every batch from now on to deal all it could goes first: this keeps the epoch from running out of classes.
            with np.errstate(divide="ignore"):
                waiting = rng.exponential(size=len(left)) / left
            chosen = np.lexsort((waiting, left < batches_left))[: self._classes_per_batch]
            left[chosen] -= 1
            batch = [image for k in chosen for image in decks[k].deal(self._images_per_class)]
            yield batch[self._share]

    def _allowance(self) -> NDArray[np.int64]:
        """Count how many subgroups each class may give in an epoch."""
        sizes = np.array([len(members) for members in self._members])
        needed = self._batches * self._classes_per_batch
        # No smaller number of passes can do: m of them give at most len(sizes) + m * sizes.sum() / Q subgroups.
        passes = max(1, (needed - len(sizes)) * self._images_per_class // int(sizes.sum()))
        allowance: NDArray[np.int64] = np.maximum(1, passes * sizes // self._images_per_class)
        while np.minimum(allowance, self._batches).sum() < needed:
            draws_per_image = (allowance + 1) * self._images_per_class / sizes
            draws_per_image[allowance >= self._batches] = np.inf
            allowance[draws_per_image == draws_per_image.min()] += 1
        return allowance


class _Deck:
    """The images of one class, dealt out in random order, shuffled anew when none is left."""

    def __init__(self, members: NDArray[np.int64], rng: Generator) -> None:
        self._members = members
        self._rng = rng
        self._stack: list[int] = []

    def deal(self, count: int) -> list[int]:
        hand: list[int] = []
        while len(hand) < count:
            if not self._stack:
                # What the hand holds already goes to the bottom of the stack, that is, to its front.
                self._stack = sorted(self._rng.permutation(self._members).tolist(), key=lambda i: i not in hand)
            hand.append(self._stack.pop())
        return hand
