"""How sure shares of images are: bootstrap intervals, and the paired test of two localizers on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum, lgamma, log

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Probability of an interval."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A share of images, or a difference of two, with its bootstrap interval, in percent.

    Attributes:
        value: of the images themselves.
        low: the 2.5 % quantile over the resamples.
        high: the 97.5 % quantile.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two localizers on the same images.

    Attributes:
        first: share of the images that the first one has right, with its interval.
        second: the same of the second one.
        difference: second less first, images resampled together.
        only_first: how many images the first one alone has right.
        only_second: how many the second one alone has right.
        p_value: of McNemar's exact test that both are as often right alone.
    """

    first: Interval
    second: Interval
    difference: Interval
    only_first: int
    only_second: int
    p_value: float


def bootstrap_interval(correct: NDArray[np.bool_], seed: int = 0) -> Interval:
    """Find the 95 % interval of a share of images: percentiles of 10,000 bootstrap resamples.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993). Of N images drawn with replacement from N, the
    number of right ones is binomial, so it is drawn from that distribution. What is uncertain for other reasons (the
    seed of a training, the threshold that was chosen) is not in it.

    Args:
        correct: bool [N], N >= 1, whether each image is right.
        seed: of the resamples; the same seed gives the same interval.

    Raises:
        ValueError: `correct` is another array.
    """
    _check(correct, "correct")
    draws = np.random.default_rng(seed).binomial(len(correct), correct.mean(), RESAMPLES)
    return _interval(int(correct.sum()), draws, len(correct))


def paired_test(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int = 0) -> PairedTest:
    """Compare two localizers on the same images.

    Images that both have right, or both wrong, say nothing of a difference. If b images are right with the first one
    alone and c with the second one alone, b is binomial of b + c draws at one half where neither is better; the p-value
    is two-sided: min(1, 2 P(X <= min(b, c))). McNemar, "Note on the sampling error of the difference between
    correlated proportions or percentages" (Psychometrika 12, 1947), in its exact form.

    Args:
        first: bool [N], N >= 1, whether the first one has each image right.
        second: bool [N], the same of the second one.
        seed: of the resamples, as `bootstrap_interval` takes it.

    Raises:
        ValueError: one is another array, or they are of different length.
    """
    _check(first, "first")
    _check(second, "second")
    if len(first) != len(second):
        raise ValueError(f"first is of {len(first)} images and second of {len(second)}; the same ones are accepted.")
    images, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    shares = np.array([only_first, only_second, images - only_first - only_second]) / images
    draws = np.random.default_rng(seed).multinomial(images, shares, RESAMPLES)
    return PairedTest(
        bootstrap_interval(first, seed),
        bootstrap_interval(second, seed),
        _interval(only_second - only_first, draws[:, 1] - draws[:, 0], images),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the p-value of McNemar's exact two-sided test, as `paired_test` has it, from its two counts."""
    count = only_first + only_second
    # Logarithms, as the coefficients themselves are beyond any float from 1030 on.
    terms = (
        exp(lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1) - count * log(2))
        for k in range(min(only_first, only_second) + 1)
    )
    return min(1.0, 2 * fsum(terms))


def _interval(count: int, draws: NDArray[np.int64], images: int) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) * 100.0 / images
    return Interval(count * 100.0 / images, float(low), float(high))


def _check(correct: NDArray[np.bool_], name: str) -> None:
    if not isinstance(correct, np.ndarray) or correct.dtype != np.bool_ or correct.ndim != 1 or not len(correct):
        found = f"{correct.dtype} {list(correct.shape)}" if isinstance(correct, np.ndarray) else type(correct).__name__
        raise ValueError(f"{name} is {found}; bool [N] of one image or more is accepted.")
