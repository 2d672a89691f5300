"""What becomes of one image: kinds of error by hand, at and beside their limits, and the evaluator's own IoU."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from iir_fast.data import GroundTruth
from iir_fast.evaluation import (
    ERRORS,
    ErrorKind,
    Evaluator,
    FixedThreshold,
    ScoredImage,
    Verdict,
    error_kind,
    judge,
    score_contours,
)
from iir_fast.evaluation.verdicts import error_shares

A, B = [0, 0, 99, 99], [120, 0, 219, 99]
"""Two true boxes of 100 x 100 pixels."""


@pytest.mark.parametrize(
    ("box", "true", "kind"),
    [
        (A, [B, A], "none"),
        ([0, 0, 49, 99], [A], "none"),  # IoU 0.5
        ([0, 0, 48, 99], [A], "part"),  # IoU 0.49, all of the box in A
        ([0, 0, 219, 99], [A, B], "several instances"),  # IoU 10/22, both whole
        ([0, 0, 219, 99], [A], "too large"),  # the same with one instance: 10/22 of the box in A, A whole
        ([69, 0, 150, 99], [A, B], "several instances"),  # 31 of 100 columns of each
        ([70, 0, 150, 99], [A, B], "wrong place"),  # 30 of A's, no more than 0.3; 31 of 81 in B, no more than half
        ([49, 0, 148, 99], [A], "part"),  # 51 of 100 columns of the box in A
        ([50, 0, 149, 99], [A], "wrong place"),  # 50 of 100, which is no more than half, and half of A
        ([30, 0, 169, 99], [A], "too large"),  # 70 of A's columns are 70 of the box's 140
        ([31, 0, 169, 99], [A], "wrong place"),  # 69 are not enough
        ([150, 150, 160, 160], [A, B], "wrong place"),  # touches none
    ],
)
def test_kinds_of_error(box: list[int], true: list[list[int]], kind: ErrorKind) -> None:
    arrays = np.array([box]), np.array(true)
    assert error_kind(*arrays) == kind
    assert error_kind(*arrays, is_class_right=False) == "class"


@pytest.mark.parametrize("wrong", [A, [], np.zeros(4, int), np.zeros((1, 4)), np.array([[9, 0, 0, 9]])], ids=str)
def test_what_is_no_box_is_refused(wrong: Any) -> None:
    box = np.array([A])
    with pytest.raises(ValueError, match=r"^box (is|holds) .* accepted"):
        error_kind(wrong, box)
    with pytest.raises(ValueError, match=r"^true (is|holds) .* accepted"):
        error_kind(box, wrong)


def test_every_kind_has_its_share_in_the_order_in_which_it_is_looked_for() -> None:
    kinds: list[ErrorKind] = ["none", "class", "several instances", "part", "too large", "wrong place"]
    shares = error_shares(Verdict("a", 0, 0, 0.1, 0.2, kind) for kind in kinds)
    assert shares is not None
    assert list(shares) == list(ERRORS) == kinds
    assert set(shares.values()) == {100 / 6}


def test_a_verdict_on_an_image_without_a_box_and_on_an_iou_of_one_half() -> None:
    without = Verdict("a", 0, 0)
    assert without.iou is without.threshold is without.error is None
    assert Verdict("a", 0, 0, 0.5).is_localized


def image(ranked: list[int] | None, boxes: list[list[int]], label: int = 3) -> ScoredImage:
    """A score map with a strong square, and around it a weak one that a threshold below 0.5 takes in."""
    scoremap = np.zeros((224, 224))
    scoremap[20:200, 20:200] = 0.5
    scoremap[20:60, 20:60] = 1
    truth = GroundTruth((448, 448), np.array(boxes, float).reshape(-1, 4))
    return ScoredImage("a.jpg", scoremap, label, None if ranked is None else np.array(ranked), truth)


@pytest.mark.parametrize(
    ("ranked", "threshold", "expected"),
    [
        ([3, 1], 0.2, Verdict("a.jpg", 3, 3, 1.0, 0.2, "none")),
        ([1, 3], 0.2, Verdict("a.jpg", 3, 1, 1.0, 0.2, "class")),
        (None, 0.2, Verdict("a.jpg", 3, None, 1.0, 0.2, "none")),
        (None, 0.6, Verdict("a.jpg", 3, None, 41**2 / 181**2, 0.6, "part")),
        ([3], None, Verdict("a.jpg", 3, 3)),
    ],
)
def test_one_image_by_hand(ranked: list[int] | None, threshold: float | None, expected: Verdict) -> None:
    # The contour of columns 20 to 199 has x1 = 200: 181 pixels wide, as the true box is.
    found = judge(image(ranked, [[40, 40, 400, 400]]), threshold)
    assert found == expected
    assert found.is_classified == (ranked is not None and ranked[0] == 3)
    assert found.is_localized == (threshold == 0.2)


def test_an_image_without_a_box_is_classified_only() -> None:
    assert judge(image([3], []), 0.2) == Verdict("a.jpg", 3, 3)
    assert not judge(image([3], []), 0.2).is_localized


def test_the_iou_is_the_evaluators() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        scoremap = cv2.resize(random.random((7, 7)), (224, 224), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        boxes = np.sort(random.integers(0, 224, (3, 2, 2)), axis=1).reshape(3, 4)
        truth = GroundTruth((224, 224), boxes.astype(float))
        taus = random.random(5)
        largest, _ = score_contours(scoremap, taus, boxes)
        found = [judge(ScoredImage("a", scoremap, 0, None, truth), float(tau)).iou for tau in taus]
        assert found == largest.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_evaluator_judges_at_its_own_threshold(workers: int) -> None:
    items = [image([3], [[40, 40, 400, 400]]), image([1], [[40, 40, 400, 400]]), image([3], [[40, 40, 80, 80]])]
    evaluator = Evaluator("test", 0.1, FixedThreshold(0.2, "val"), workers)
    metrics = evaluator.run(items)
    verdicts = list(evaluator.judge(items, lambda item: item, 0.2))
    assert [each.error for each in verdicts] == ["none", "class", "too large"]
    shares = error_shares([*verdicts, Verdict("without a box", 0, 0)])
    assert shares is not None
    assert shares == {**dict.fromkeys(ERRORS, 0.0), **dict.fromkeys(("none", "class", "too large"), 100 / 3)}
    assert shares["none"] == metrics.top1_loc
    assert sum(each.is_localized for each in verdicts) * 100 / 3 == metrics.gt_known_loc
    assert error_shares([Verdict("without a box", 0, 0)]) is None
