"""Boxes of contours on maps whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from iir_fast.evaluation import largest_box, outer_contours, thresholds
from iir_fast.evaluation.boxes import contour_boxes


def filled(*rectangles: tuple[int, int, int, int], value: float = 1.0) -> NDArray[np.float64]:
    """A map of zeros with pixel rectangles x0, y0, x1, y1 (exclusive) set to `value`."""
    scoremap = np.zeros((224, 224))
    for x0, y0, x1, y1 in rectangles:
        scoremap[y0:y1, x0:x1] = value
    return scoremap


def all_boxes(scoremap: NDArray[np.float64], tau: float = 0.0) -> set[tuple[int, ...]]:
    image = (scoremap * 255).astype(np.uint8)
    return set(contour_boxes(image, int(tau * image.max()))[0])


def test_thresholds() -> None:
    np.testing.assert_array_equal(thresholds(0.01), np.arange(0, 1, 0.01))
    assert len(thresholds(0.001)) == 1000
    assert thresholds(0.25).tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("step", [0, -0.1, 1.5, float("nan")])
def test_a_step_outside_the_range_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match=r"accepted"):
        thresholds(step)


def test_a_rectangle_is_its_own_box() -> None:
    assert largest_box(filled((30, 40, 70, 100)), 0.5) == largest_box(filled((30, 40, 70, 100)), 0) == (30, 40, 70, 100)


def test_a_box_ends_at_the_last_pixel() -> None:
    assert largest_box(filled((200, 0, 224, 224)), 0.5) == (200, 0, 223, 223)


def test_a_map_of_another_size_keeps_its_own_pixels() -> None:
    scoremap = np.zeros((30, 50))
    scoremap[20:30, 10:50] = 1
    assert largest_box(scoremap, 0.5) == (10, 20, 49, 29)


def test_a_map_of_zeros_has_the_empty_box() -> None:
    assert all_boxes(np.zeros((224, 224)), 0.2) == {(0, 0, 0, 0)}
    assert largest_box(np.zeros((224, 224)), 0.2) == (0, 0, 0, 0)


def test_a_pixel_must_be_strictly_above_the_threshold() -> None:
    scoremap = filled((10, 10, 90, 90), value=128 / 255) + filled((40, 40, 60, 60), value=127 / 255)
    assert scoremap.max() == 1
    assert largest_box(scoremap, 127.5 / 255) == (10, 10, 90, 90)  # cut at 127
    assert largest_box(scoremap, 128.5 / 255) == (40, 40, 60, 60)  # cut at 128


def test_the_threshold_is_relative_to_the_maximum() -> None:
    assert largest_box(filled((10, 10, 90, 90), value=0.1), 0.9) == (10, 10, 90, 90)


def test_neighbours_across_a_corner_are_one_component() -> None:
    assert all_boxes(filled((10, 10, 20, 20), (20, 20, 30, 30))) == {(10, 10, 30, 30)}


def test_all_contours_and_the_largest() -> None:
    scoremap = filled((10, 10, 30, 30), (100, 100, 180, 160), (50, 5, 60, 9))
    assert all_boxes(scoremap) == {(10, 10, 30, 30), (100, 100, 180, 160), (50, 5, 60, 9)}
    assert largest_box(scoremap, 0.5) == (100, 100, 180, 160)


def test_the_hole_is_a_box_grown_by_one_pixel() -> None:
    scoremap = filled((20, 20, 100, 100)) - filled((40, 50, 80, 90)) + filled((55, 60, 65, 70))
    assert all_boxes(scoremap) == {(20, 20, 100, 100), (39, 49, 81, 91), (55, 60, 65, 70)}


def test_largest_is_by_polygon_area_not_by_pixels() -> None:
    line, square = (0, 0, 200, 1), (100, 100, 105, 105)  # 200 pixels with area 0, 25 pixels with area 16
    assert largest_box(filled(line, square), 0.5) == square


def test_the_first_contour_wins_a_tie() -> None:
    # OpenCV lists the lowest contour first.
    assert largest_box(filled((10, 10, 20, 20), (100, 150, 110, 160), (60, 90, 70, 100)), 0.5) == (100, 150, 110, 160)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_outside_the_range_is_refused(threshold: float) -> None:
    for find in (largest_box, outer_contours):
        with pytest.raises(ValueError, match=r"\[0, 1\) is accepted"):
            find(np.zeros((224, 224)), threshold)


@pytest.mark.parametrize("scoremap", [np.zeros(9), np.zeros((9, 0)), np.full((9, 9), np.nan), np.full((9, 9), 1.01)])
def test_what_is_no_score_map_is_refused(scoremap: NDArray[np.float64]) -> None:
    for find in (largest_box, outer_contours):
        with pytest.raises(ValueError, match=r"scoremap .* accepted"):
            find(scoremap, 0.5)
