"""Localization with every image cut at its own threshold, which no box has chosen, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from iir_fast.data import GroundTruth
from iir_fast.evaluation import Evaluator, FixedThreshold, ScoredImage, own_threshold, score_contours

BOX = np.array([[20, 20, 200, 200]])


def image(ranked: list[int] | None, own: float | None = None) -> ScoredImage:
    """Class 0, its box found for tau < 0.5 alone."""
    scoremap = np.zeros((224, 224))
    scoremap[20:200, 20:200] = 0.5
    scoremap[20:60, 20:60] = 1
    truth = GroundTruth((224, 224), BOX.astype(float))
    return ScoredImage("a", scoremap, 0, None if ranked is None else np.array(ranked), truth, own)


@pytest.mark.parametrize(("own", "right"), [(0.2, True), (0.6, False)])
def test_each_image_is_cut_at_the_threshold_that_it_has(own: float, right: bool) -> None:
    items = [image(ranked, own) for ranked in ([0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [1, 2, 3, 4, 5])]
    found = Evaluator("test", fixed_threshold=FixedThreshold(0.8 - own, "val")).run(items)
    assert found.no_box_gt_known_loc == 100 * right != found.gt_known_loc
    assert found.no_box_top1_loc == pytest.approx(100 / 3 * right)
    assert found.no_box_top5_loc == pytest.approx(200 / 3 * right)


def test_an_iou_of_exactly_one_half_is_right() -> None:
    scoremap = np.zeros((224, 224))
    scoremap[20:199, 20:199] = 1
    truth = GroundTruth((224, 224), np.array([[20.0, 20, 199, 109]]))  # 90 of the box's 180 rows
    found = Evaluator("test").run([ScoredImage("a", scoremap, 0, None, truth, 0.5)])
    assert (found.no_box_gt_known_loc, found.max_box_acc) == (100, 100)


def test_images_differ_in_their_thresholds() -> None:
    found = Evaluator("test").run([image([0], 0.2), image([0], 0.6)])
    assert (found.no_box_gt_known_loc, found.gt_known_loc, found.no_box_top5_loc) == (50, 100, None)


def test_without_one_the_threshold_is_that_of_the_map() -> None:
    given = image(None)
    iou, _ = score_contours(given.scoremap, np.array([own_threshold(given.scoremap)]), BOX)
    found = Evaluator("test").run([given])
    assert found.no_box_gt_known_loc == 100 * (iou[0] >= 0.5)
    assert found.no_box_top1_loc is found.no_box_top5_loc is None
