"""Top-k localization by the other rule in use, each at its own best threshold, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from iir_fast.data import GroundTruth
from iir_fast.evaluation import Evaluator, FixedThreshold, Peak, ScoredImage, TopPeaks


def test_top_k_at_its_own_best_threshold_for_each_iou_and_both_rules_for_contours() -> None:
    # True is a square of 100 pixels. Below 0.5 the largest contour is twice as wide (IoU 0.49), from there on 0.6 as
    # wide (IoU 0.60); a small one, which fits the second true box, is there all the time.
    scoremap = np.zeros((224, 224))
    scoremap[20:120, 20:220] = 0.5
    scoremap[20:120, 20:79] = scoremap[180:190, 180:190] = 1
    square, small = [20, 20, 119, 119], [180, 180, 190, 190]
    alone = ScoredImage("a", scoremap, 0, np.arange(5), GroundTruth((224, 224), np.array([square], float)))
    both = GroundTruth((224, 224), np.array([square, small], float))
    ranked_last, missed = np.array([1, 2, 3, 4, 0]), np.arange(1, 6)
    items = [
        alone,
        replace(alone, ranked_classes=ranked_last, ground_truth=both),
        replace(alone, ranked_classes=missed),
    ]
    found = Evaluator("test", 0.25, FixedThreshold(0.2, "val")).run(items)
    third, half, none = 100 / 3, Peak(200 / 3, 0.5), Peak(0.0, 0.0)
    assert found.top_peaks == (
        TopPeaks("largest", 0.3, Peak(third, 0.0), Peak(200 / 3, 0.0)),
        TopPeaks("largest", 0.5, Peak(third, 0.5), half),
        TopPeaks("largest", 0.7, none, none),
        TopPeaks("any", 0.3, Peak(third, 0.0), Peak(200 / 3, 0.0)),
        TopPeaks("any", 0.5, Peak(third, 0.5), half),
        TopPeaks("any", 0.7, none, Peak(third, 0.0)),
    )
    assert (found.top1_loc, found.top5_loc, found.max_box_acc) == (0, 0, 100)
    without = Evaluator("test", 0.25).run([replace(each, ranked_classes=np.array([0])) for each in items])
    assert without.top_peaks[1] == TopPeaks("largest", 0.5, Peak(100.0, 0.5), None)
    peaks = json.loads(json.dumps(found.to_dict()))["top_peaks"]
    assert [peaks[1][name] for name in ("contours", "delta")] == ["largest", 0.5]
    assert peaks[1]["top5"] == {"best": 200 / 3, "threshold": 0.5, "chosen_on": "test, the split it is reported on"}


def test_a_fixed_threshold_beside_the_grid_is_no_peak() -> None:
    scoremap = np.full((224, 224), 0.1)  # at 0, the only threshold of the grid, its box is the whole map
    scoremap[20:200, 20:200] = 0.5
    truth = GroundTruth((224, 224), np.array([[20.0, 20, 200, 200]]))
    grey = ScoredImage("a", scoremap, 0, np.array([0]), truth)
    metrics = Evaluator("test", 1.0, FixedThreshold(0.3, "val")).run([grey])
    assert (metrics.gt_known_loc, metrics.top1_loc, metrics.max_box_acc_v2) == (100, 100, 200 / 3)
    assert metrics.top_peaks[1:3] == tuple(
        TopPeaks("largest", delta, Peak(best, 0.0), None) for delta, best in ((0.5, 100.0), (0.7, 0.0))
    )
