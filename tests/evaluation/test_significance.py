"""Intervals and the paired test, against values by hand, exact fractions and resampling image by image."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from iir_fast.evaluation import Interval, PairedTest, bootstrap_interval, paired_test
from iir_fast.evaluation.significance import mcnemar


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1), (1, 5, 14 / 64), (5, 1, 14 / 64), (3, 3, 1), (0, 10, 2 / 1024), (2, 3, 1)],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("fewer", "more"), [(900, 1100), (2400, 2600), (10, 1200)])
def test_mcnemar_of_many_images_is_exact(fewer: int, more: int) -> None:
    exact = Fraction(2 * sum(comb(fewer + more, k) for k in range(fewer + 1)), 2 ** (fewer + more))
    assert mcnemar(fewer, more) == pytest.approx(float(exact), rel=1e-9)


def test_an_interval_has_the_quantiles_of_the_binomial() -> None:
    # Of 100 tosses of a coin, 40 to 60 heads are the 2.5 % and the 97.5 % quantile.
    assert bootstrap_interval(np.arange(100) < 50) == Interval(50.0, 40.0, 60.0)
    assert bootstrap_interval(np.ones(7, bool)) == Interval(100.0, 100.0, 100.0)
    assert bootstrap_interval(np.zeros(7, bool)) == Interval(0.0, 0.0, 0.0)


def test_intervals_are_those_of_resampled_images_and_the_same_every_time() -> None:
    random = np.random.default_rng(1)
    first, second = random.random((2, 400)) < [[0.6], [0.7]]
    found = paired_test(first, second)
    assert paired_test(first, second) == found
    chosen = random.integers(0, 400, (4000, 400))
    shares = {"first": first[chosen], "second": second[chosen]}
    means = {name: share.mean(axis=1) * 100 for name, share in shares.items()}
    means["difference"] = means["second"] - means["first"]
    for name, drawn in means.items():
        interval = getattr(found, name)
        assert [interval.low, interval.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.6)
        assert interval.high - interval.low > 8
    assert found.difference.value == pytest.approx(found.second.value - found.first.value)


def test_the_seed_is_that_of_every_interval_and_0_unless_told() -> None:
    first, second = np.random.default_rng(1).random((2, 100_000)) < [[0.6], [0.7]]
    assert bootstrap_interval(first) == bootstrap_interval(first, 0) != bootstrap_interval(first, 1)
    found = paired_test(first, second, 1)
    assert paired_test(first, second) == paired_test(first, second, 0) != found
    assert (found.first, found.second) == (bootstrap_interval(first, 1), bootstrap_interval(second, 1))


def test_a_pair_by_hand() -> None:
    first, second = np.array([1, 1, 0, 0, 0, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1, 1, 1, 1], bool)
    found = paired_test(first, second)
    assert (found.only_first, found.only_second, found.difference.value) == (1, 5, 50.0)
    assert found.p_value == pytest.approx(14 / 64)
    nothing = Interval(0.0, 0.0, 0.0)
    same = bootstrap_interval(first)
    assert paired_test(first, first) == PairedTest(same, same, nothing, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (np.zeros(0, bool), r"bool \[0\]"),
        (np.zeros((2, 2), bool), r"bool \[2, 2\]"),
        (np.zeros(3), r"float64 \[3\]"),
        ([True], "list"),
    ],
)
def test_other_arrays_are_refused(wrong: Any, named: str) -> None:
    sentence, right = rf"is {named}; bool \[N\] of one image or more is accepted", np.ones(3, bool)
    with pytest.raises(ValueError, match=f"^correct {sentence}"):
        bootstrap_interval(wrong)
    with pytest.raises(ValueError, match=f"^first {sentence}"):
        paired_test(wrong, right)
    with pytest.raises(ValueError, match=f"^second {sentence}"):
        paired_test(right, wrong)


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="first is of 3 images and second of 4; the same ones are accepted"):
        paired_test(np.ones(3, bool), np.ones(4, bool))
