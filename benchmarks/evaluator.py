"""The evaluator's boxes against a search for contours: ``python -m benchmarks.evaluator [MAPS]``.

First `MAPS` generated maps (10,000 unless given) of all kinds are scored at all thresholds both ways, and every
difference is counted. Then both are timed in turns, in one thread, on random maps upsampled to 224x224: the search at
each distinct cut, the search at each of the 1,000 thresholds, and the component tree.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scoremaps import KINDS, Map, true_boxes, upsampled
from iir_fast.evaluation.boxes import box_iou, thresholds
from iir_fast.evaluation.contours import compiled, score_contours, search_contours

SIDES = (5, 9, 16, 33, 64)
EVERY_NTH_FULL_SIZE = 40
TIMED_MAPS = 24

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


def search_every_threshold(scoremap: Map, taus: NDArray[np.float64], boxes: NDArray[np.int64]) -> Scores:
    """What `score_contours` returns, with one search for each threshold, as the protocol's own evaluator does it."""
    image = (scoremap * 255).astype(np.uint8)
    height, width = image.shape
    largest, best = np.empty(len(taus)), np.empty(len(taus))
    for number, tau in enumerate(taus):
        _, binary = cv2.threshold(image, int(tau * image.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        found = np.array([cv2.boundingRect(contour) for contour in contours] or [(0, 0, 0, 0)], dtype=np.int64)
        found[:, 2:] = np.minimum(found[:, :2] + found[:, 2:], (width - 1, height - 1))
        iou = box_iou(found, boxes).max(axis=1)
        areas = [cv2.contourArea(contour) for contour in contours] or [0.0]
        largest[number], best[number] = iou[areas.index(max(areas))], iou.max()
    return largest, best


def count_differences(maps: int, seed: int = 0) -> int:
    """Maps on which any threshold scores differently; every so often a map has the protocol's full size."""
    random, taus, different = np.random.default_rng(seed), thresholds(0.001), 0
    kinds = list(KINDS.values())
    for number in range(maps):
        size = 224 if number % EVERY_NTH_FULL_SIZE == 0 else SIDES[number // len(kinds) % len(SIDES)]
        scoremap, boxes = kinds[number % len(kinds)](random, size), true_boxes(random, size)
        pairs = zip(score_contours(scoremap, taus, boxes), search_contours(scoremap, taus, boxes), strict=True)
        different += not all(np.array_equal(one, other) for one, other in pairs)
    return different


def time_in_turns(cells: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds of every map [cells, cells] upsampled, by what was timed."""
    random, taus = np.random.default_rng(seed), thresholds(0.001)
    ways: dict[str, Callable[[Map, NDArray[np.float64], NDArray[np.int64]], Scores]] = {
        "tree": score_contours,
        "search": search_contours,
        "search at 1,000 thresholds": search_every_threshold,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TIMED_MAPS):
        scoremap, boxes = upsampled(random, 224, cells), true_boxes(random, 224)
        for name, way in ways.items():
            start = time.perf_counter()
            way(scoremap, taus, boxes)
            found[name].append(1000 * (time.perf_counter() - start))
    return found


def main(maps: int) -> None:
    if compiled() is None:
        sys.exit("The evaluator was installed without a C++ compiler; there is nothing to compare.")
    cv2.setNumThreads(1)
    different = count_differences(maps)
    print(f"{maps:,} maps at 1,000 thresholds: {different} differ.")
    for cells in (7, 14, 28):
        found = time_in_turns(cells)
        tree = found.pop("tree")
        line = f"from {cells}x{cells}: tree {statistics.median(tree):.2f} ms"
        for name, others in found.items():
            low, ratio, high = statistics.quantiles([other / own for other, own in zip(others, tree, strict=True)], n=4)
            line += f"; {name} {statistics.median(others):.1f} ms, {ratio:.1f} times ({low:.1f} to {high:.1f})"
        print(line)
    sys.exit(different > 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
