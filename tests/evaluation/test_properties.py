"""What holds for every score map and every set of boxes: drawn by hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from iir_fast.evaluation import score_contours, thresholds
from iir_fast.evaluation.boxes import box_iou
from iir_fast.evaluation.contours import search_contours
from iir_fast.evaluation.metrics import box_curve, pixel_average_precision

# The same examples on every run, and no assertion on seconds.
reproducible = settings(derandomize=True, deadline=None, max_examples=150)
TAUS = thresholds(0.01)


@st.composite
def true_boxes(draw: st.DrawFn, height: int, width: int) -> NDArray[np.int64]:
    corners = st.tuples(*(st.integers(0, size - 1) for size in (width, height, width, height)))
    drawn = np.array(draw(st.lists(corners, min_size=1, max_size=3)))
    return np.concatenate((np.minimum(drawn[:, :2], drawn[:, 2:]), np.maximum(drawn[:, :2], drawn[:, 2:])), axis=1)


@st.composite
def maps_and_boxes(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Maps of few levels, where contours touch, nest and tie, on the grid of 255 grey levels and off it."""
    height, width = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    levels = draw(st.sampled_from([1, 2, 5, 255]))
    grid = draw(arrays(np.int64, (height, width), elements=st.integers(0, levels)))
    return grid / levels * draw(st.sampled_from([1.0, 0.7, 1 / 255])), draw(true_boxes(height, width))


@reproducible
@given(maps_and_boxes())
def test_the_component_tree_scores_what_opencv_scores(arguments):
    scoremap, boxes = arguments
    for one, other in zip(score_contours(scoremap, TAUS, boxes), search_contours(scoremap, TAUS, boxes), strict=True):
        assert np.array_equal(one, other)


@reproducible
@given(maps_and_boxes(), st.randoms(use_true_random=False))
def test_a_threshold_does_not_know_the_others(arguments, random):
    some = random.sample(range(len(TAUS)), 7)
    for one, other in zip(
        score_contours(arguments[0], TAUS[some], arguments[1]),
        score_contours(arguments[0], TAUS, arguments[1]),
        strict=True,
    ):
        assert np.array_equal(one, other[some])


@reproducible
@given(maps_and_boxes())
def test_all_contours_hold_the_largest(arguments):
    largest, best = score_contours(arguments[0], TAUS, arguments[1])
    assert (largest >= 0).all()
    assert (largest <= best).all()
    assert (best <= 1).all()


@reproducible
@given(maps_and_boxes())
def test_more_true_boxes_are_never_harder_to_hit(arguments):
    scoremap, boxes = arguments
    for one, other in zip(
        score_contours(scoremap, TAUS, boxes), score_contours(scoremap, TAUS, boxes[:1]), strict=True
    ):
        assert (one >= other).all()


@reproducible
@given(maps_and_boxes())
def test_the_map_and_its_mirror_hold_the_same_boxes(arguments):
    """Away from the border, where boxes are clipped; of equally large contours the last in reading order counts."""
    scoremap, boxes = np.pad(arguments[0], 2), arguments[1] + 2
    assume(scoremap.any())
    mirrored = boxes.copy()
    mirrored[:, [2, 0]] = scoremap.shape[1] - boxes[:, [0, 2]]
    (_, one), (_, other) = score_contours(scoremap, TAUS, boxes), score_contours(scoremap[:, ::-1], TAUS, mirrored)
    assert np.array_equal(one, other)


@reproducible
@given(true_boxes(20, 20), true_boxes(20, 20))
def test_iou_is_symmetric_and_one_on_itself(first, second):
    assert np.array_equal(box_iou(first, second), box_iou(second, first).T)
    assert (box_iou(first, first).diagonal() == 1).all()


@reproducible
@given(st.lists(st.integers(0, 40), min_size=len(TAUS), max_size=len(TAUS)))
def test_a_curve_names_the_first_of_its_highest_points(correct):
    curve = box_curve(np.array(correct), 40, 0.5, TAUS)
    assert curve.best == max(curve.accuracy) == 100 * max(correct) / 40
    assert curve.threshold == TAUS[correct.index(max(correct))]


@reproducible
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=12))
def test_pxap_lies_between_nothing_and_certainty(bins):
    on_object, elsewhere = np.array(bins).sum(axis=0)
    assume(on_object > 0)
    # The protocol's highest bin lies above 1 and is always empty.
    assert 0 < pixel_average_precision(*np.array([*bins, (0, 0)]).T) <= 100.0001
    alike = pixel_average_precision(np.array([on_object, 0]), np.array([elsewhere, 0]))
    assert alike == pytest.approx(100 * on_object / (on_object + elsewhere))
    apart = pixel_average_precision(np.array([0, on_object, 0]), np.array([elsewhere, 0, 0]))
    assert apart == pytest.approx(100)
