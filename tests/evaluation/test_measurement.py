"""What is measured on one image, against values computed by hand."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iir_fast.data import GroundTruth
from iir_fast.evaluation import ScoredImage
from iir_fast.evaluation.boxes import box_iou
from iir_fast.evaluation.measurement import measure, scale_boxes, scale_masks

NO_BOXES = np.zeros((0, 4))
TAUS = np.array([0.0, 0.5])
EDGES = np.array([0, 0.5, 1, 2, 3])


def test_boxes_are_scaled_and_truncated() -> None:
    boxes = np.array([[1.0, 1.0, 499.0, 374.0], [0.0, 0.0, 500.0, 375.0]])
    # 224 / 500 = 0.448 and 224 / 375 = 0.5973: 0.448, 0.597, 223.55, 223.4
    assert scale_boxes(boxes, (500, 375)).tolist() == [[0, 0, 223, 223], [0, 0, 224, 224]]


def test_scaling_multiplies_before_it_divides() -> None:
    # Were 224 / size rounded first, these sizes would be truncated to 223.
    sizes = [size for size in range(1, 2000) if int(size * (224 / size)) != 224]
    assert sizes
    for size in sizes:
        box = np.array([[0.0, 0.0, size, size]])
        assert scale_boxes(box, (size, size)).tolist() == [[0, 0, 224, 224]]


def test_iou_counts_both_corner_pixels() -> None:
    first = np.array([[0, 0, 9, 9], [0, 0, 0, 0]])
    second = np.array([[0, 0, 9, 9], [5, 0, 14, 9], [10, 10, 19, 19], [9, 9, 9, 9]])
    expected = [[1, 50 / 150, 0, 1 / 100], [1 / 100, 0, 0, 0]]
    np.testing.assert_array_equal(box_iou(first, second), expected)


def truth(*masks: NDArray[Any], ignore: NDArray[Any] | None = None) -> GroundTruth:
    return GroundTruth((4, 2), NO_BOXES, tuple(mask.astype(np.uint8) for mask in masks), ignore)


def test_masks_are_joined_and_ignored_pixels_dropped() -> None:
    left = np.array([[1, 0, 0, 0], [1, 0, 0, 0]])
    corner = np.array([[0, 255, 0, 0], [0, 0, 0, 0]])
    ignore = np.array([[0, 1, 1, 0], [0, 0, 1, 0]], np.uint8)  # covers an object pixel, which stays foreground
    on_object, elsewhere = scale_masks(truth(left, corner, ignore=ignore), "a")
    big = np.ones((112, 56), bool)
    np.testing.assert_array_equal(on_object, np.kron([[1, 1, 0, 0], [1, 0, 0, 0]], big).astype(bool))
    np.testing.assert_array_equal(elsewhere, np.kron([[0, 0, 0, 1], [0, 1, 0, 1]], big).astype(bool))


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (1024, 683), (225, 223), (3, 1000)])
def test_nearest_neighbour_takes_the_floored_source_pixel(size: tuple[int, int]) -> None:
    width, height = size
    mask = (np.random.default_rng(0).random((height, width)) > 0.5).astype(np.uint8)
    rows, columns = (np.arange(224) * height / 224).astype(int), (np.arange(224) * width / 224).astype(int)
    on_object, elsewhere = scale_masks(GroundTruth(size, NO_BOXES, (mask,)), "a")
    np.testing.assert_array_equal(on_object, mask[rows][:, columns] > 0)
    np.testing.assert_array_equal(elsewhere, ~on_object)


def test_a_mask_is_scaled_from_its_own_resolution() -> None:
    halves = np.array([[1, 0]], np.uint8)
    ignore = np.array([[0, 0, 0, 1]] * 3, np.uint8)
    on_object, elsewhere = scale_masks(GroundTruth((500, 375), NO_BOXES, (halves,), ignore), "a")
    np.testing.assert_array_equal(on_object, np.kron([[1, 1, 0, 0]], np.ones((224, 56))).astype(bool))
    np.testing.assert_array_equal(elsewhere, np.kron([[0, 0, 1, 0]], np.ones((224, 56))).astype(bool))


@pytest.mark.parametrize("mask", [np.zeros((2, 4, 3), np.uint8), np.zeros((2, 4)), np.zeros((0, 4), np.uint8)])
def test_a_mask_of_another_shape_or_dtype_is_refused(mask: NDArray[Any]) -> None:
    sentence = rf"mask of image 'a\.jpg' is {mask.dtype} {re.escape(str(list(mask.shape)))}; uint8 \[height, width\] is"
    with pytest.raises(ValueError, match=sentence):
        measure(scored(annotation=GroundTruth((4, 2), NO_BOXES, (mask,))), TAUS, EDGES)


def test_boxes_need_the_size_of_their_image() -> None:
    none = scale_boxes(NO_BOXES, None)
    assert (none.shape, none.dtype) == ((0, 4), np.int64)
    with pytest.raises(ValueError, match=r"size is None; .* is needed for its 1 boxes"):
        scale_boxes(np.ones((1, 4)), None)


def scored(ranked: list[int] | None = None, annotation: GroundTruth | None = None) -> ScoredImage:
    scoremap = np.zeros((224, 224))
    scoremap[50:150, 50:150] = 1
    scoremap[180:190, 180:190] = 1
    ranked_classes = None if ranked is None else np.array(ranked)
    return ScoredImage("a.jpg", scoremap, 3, ranked_classes, annotation or GroundTruth((224, 224), NO_BOXES))


def test_the_largest_contour_and_the_best_contour() -> None:
    annotation = GroundTruth((224, 224), np.array([[180.0, 180, 190, 190], [0, 0, 9, 9]]))
    measurement = measure(scored(annotation=annotation), TAUS, EDGES)
    assert measurement.largest_iou is not None
    assert measurement.best_iou is not None
    assert measurement.largest_iou.tolist() == [0, 0]
    assert measurement.best_iou.tolist() == [1, 1]
    assert measurement.foreground is measurement.background is None


def test_pixel_histograms() -> None:
    mask = np.zeros((224, 224), np.uint8)
    mask[:, :100] = 1
    measurement = measure(scored(annotation=GroundTruth((224, 224), NO_BOXES, (mask,))), TAUS, EDGES)
    assert measurement.foreground is not None
    assert measurement.background is not None
    assert measurement.foreground.tolist() == [22400 - 5000, 0, 5000, 0]
    assert measurement.background.tolist() == [224 * 124 - 5100, 0, 5100, 0]
    assert measurement.largest_iou is measurement.best_iou is None


@pytest.mark.parametrize(("ranked", "rank"), [(None, None), ([3, 1, 2], 0), ([1, 2, 3], 2), ([0, 1, 2, 4], 4), ([], 0)])
def test_rank_of_the_label(ranked: list[int] | None, rank: int | None) -> None:
    measurement = measure(scored(ranked), TAUS, EDGES)
    assert measurement.label_rank == rank
    assert measurement.ranked == len(ranked or [])


@pytest.mark.parametrize("scoremap", [np.zeros((14, 14)), np.zeros((224, 224), np.float32), [[0.5]], None])
def test_a_malformed_score_map_names_the_image(scoremap: Any) -> None:
    image = ScoredImage("b.jpg", scoremap, 0, None, GroundTruth((224, 224), NO_BOXES))
    with pytest.raises(ValueError, match=r"score map of image 'b\.jpg'"):
        measure(image, TAUS, EDGES)


def test_measuring_can_be_sent_to_another_process() -> None:
    annotation = GroundTruth((224, 224), np.array([[40.0, 40, 160, 160]]))
    function, image = pickle.loads(pickle.dumps((measure, scored([3], annotation))))
    there, here = function(image, TAUS, EDGES), measure(scored([3], annotation), TAUS, EDGES)
    np.testing.assert_array_equal(there.best_iou, here.best_iou)
    assert there.label_rank == here.label_rank == 0
