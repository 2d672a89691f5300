"""The formulas that turn counts into figures."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest

from iir_fast import evaluation
from iir_fast.evaluation import FixedThreshold, Metrics, Peak
from iir_fast.evaluation.metrics import box_curve, check_stored, pixel_average_precision, pixel_peaks

EDGES = np.array([0, 0.5, 1, 2, 3])


def test_the_first_of_several_best_thresholds_is_taken() -> None:
    curve = box_curve(np.array([1, 3, 3, 2]), 4, 0.5, np.array([0.0, 0.25, 0.5, 0.75]))
    assert curve.accuracy == (25.0, 75.0, 75.0, 50.0)
    assert (curve.best, curve.threshold, curve.delta) == (75.0, 0.25, 0.5)


def test_average_precision_by_hand() -> None:
    # From the highest bin down: nothing; 1 of 1; 3 of 5; 4 of 10. Recall 0, 1/4, 3/4, 1.
    foreground, background = np.array([1, 2, 1, 0]), np.array([4, 2, 0, 0])
    assert pixel_average_precision(foreground, background) == pytest.approx(100 * (1 / 4 + 3 / 5 / 2 + 4 / 10 / 4))


def test_perfect_and_reversed_score_maps() -> None:
    low, high = np.array([10, 0, 0, 0]), np.array([0, 0, 10, 0])
    assert pixel_average_precision(high, low) == 100
    assert pixel_average_precision(low, high) == 50  # precision of calling every pixel foreground


def test_no_foreground_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^PxAP needs at least one foreground pixel, but every mask of the split is empty.$"
    ):
        pixel_average_precision(np.zeros(4, np.int64), np.ones(4, np.int64))


def test_peaks_of_pixels_by_hand() -> None:
    # Of 4 pixels on the object and 6 elsewhere are called object: all; 3 and 2; 1 and 0; none.
    piou, miou = pixel_peaks(np.array([1, 2, 1, 0]), np.array([4, 2, 0, 0]), EDGES)
    assert piou == Peak(100 * 3 / 6, 0.5)  # 4/10, 3/6, 1/4, 0
    assert miou == Peak(pytest.approx(100 * (3 / 6 + 4 / 7) / 2), 0.5)  # with 0, 4/7, 6/9, 6/10 of the background


def test_the_first_of_several_peaks_is_taken_and_nothing_may_be_called_object() -> None:
    piou, miou = pixel_peaks(np.array([0, 0, 5, 0]), np.array([5, 0, 0, 0]), EDGES)
    assert piou == miou == Peak(100, 0.5)
    # Upside down, it is best to call everything object, and for both to call nothing so: 9 of 10 are background.
    piou, miou = pixel_peaks(np.array([1, 0, 0, 0]), np.array([0, 0, 9, 0]), EDGES)
    assert piou == Peak(10, 0)
    assert miou == Peak(45, 2)


def test_without_background_its_overlap_is_nothing() -> None:
    assert pixel_peaks(np.array([2, 0, 2, 0]), np.zeros(4, np.int64), EDGES) == (Peak(100, 0), Peak(50, 0))


def test_a_single_pixel_counts_as_one() -> None:
    one, none = np.array([0, 1, 0, 0]), np.zeros(4, np.int64)
    assert pixel_peaks(one, none, EDGES) == (Peak(100, 0), Peak(50, 0))
    assert pixel_peaks(none, one, EDGES) == (Peak(0, 0), Peak(50, 1))


def test_what_is_not_given_is_none() -> None:
    given = {"split": "test", "images": 3, "step": 0.1}
    counted = {"with_boxes": 0, "curves_v2": (), "top_peaks": ()}
    assert vars(Metrics(**given)) == {**dict.fromkeys(Metrics.__annotations__), **given, **counted}


def test_they_are_printed_with_what_is_known() -> None:
    assert repr(Metrics("val", 3, 0.1)) == "Metrics(val, 3 images: )"
    assert repr(Metrics("val", 3, 0.1, max_box_acc_v2=12.345, gt_known_loc=50, pxap=0, top1_accuracy=100)) == (
        "Metrics(val, 3 images: max_box_acc_v2 12.3, gt_known_loc 50.0, pxap 0.0, top1_accuracy 100.0)"
    )


def test_no_record_of_an_evaluation_can_be_changed() -> None:
    for module in iter_modules(evaluation.__path__, "iir_fast.evaluation."):
        for each in vars(import_module(module.name)).values():
            if isinstance(each, type) and is_dataclass(each) and each.__module__ == module.name:
                assert each.__dataclass_params__.frozen, each


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_fixed_threshold_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\) is accepted"):
        FixedThreshold(value, "val")


CURVE = {"delta": 0.5, "accuracy": [10, 0.5], "best": 10, "threshold": 0.1, "chosen_on": "test"}


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"pxap": 3, "of a later version": {}},
        {"split": "test", "images": 3, "step": 0.01, "piou": {"best": 3.5, "threshold": 2.0}, "errors": {"none": 1.0}},
        {"curve_v1": CURVE, "curves_v2": [CURVE], "fixed_threshold": {"value": 0.5, "chosen_on": "val"}},
        {"top_peaks": [{"contours": "any", "delta": 0.5, "top1": {"best": 1.0, "threshold": 0}, "top5": None}]},
    ],
)
def test_what_evaluations_have_written_is_taken(figures):
    check_stored(figures)


@pytest.mark.parametrize(
    "figures",
    [
        *({"pxap": value} for value in ("3", True, [3], float("nan"), float("inf"), 10**400, 1e300)),
        *({"fixed_threshold": value} for value in (0.5, {"value": 0.5}, {"value": 1.5, "chosen_on": "val"}, [])),
        *({"curves_v2": value} for value in (None, 3, [3], [CURVE | {"accuracy": ["x"]}], [CURVE | {"delta": None}])),
        {"images": 3.5},
        {"errors": {"none": "x"}},
        {"top_peaks": [{"contours": "all", "delta": 0.5, "top1": {"best": 1.0, "threshold": 0}, "top5": None}]},
    ],
)
def test_what_no_evaluation_can_have_written_is_refused(figures):
    ((name, value),) = figures.items()
    with pytest.raises(ValueError, match=rf"^({name} is {re.escape(str(value)[:80])}|value is 1\.5; .*)$"):
        check_stored(figures)
