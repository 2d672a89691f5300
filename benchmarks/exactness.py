"""The evaluator's boxes are exactly OpenCV's: ``python -m benchmarks.exactness [MAPS]``.

`MAPS` generated maps (10,000 unless given) of all kinds are scored at all thresholds by the component tree and by a
search for contours, and every map with a difference is counted. Writes ``results/exactness.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scoremaps import KINDS, Map, true_boxes
from iir_fast.app.machine import commit
from iir_fast.evaluation.boxes import box_iou, thresholds
from iir_fast.evaluation.contours import score_contours, search_contours
from iir_fast.evaluation.library import compiled

RESULTS = Path(__file__).parent / "results" / "exactness.md"
SIDES = (5, 9, 16, 33, 64)
EVERY_NTH_FULL_SIZE = 40

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


def main(maps: int, results: Path = RESULTS) -> None:
    if compiled() is None:
        sys.exit("The evaluator was installed without a C++ compiler; there is nothing to compare.")
    different = count_differences(maps)
    text = f"""# The evaluator's boxes and OpenCV's

Made by `python -m benchmarks.exactness`. Commit {commit()}, OpenCV {cv2.__version__}.

Generated maps of {len(KINDS)} kinds ({", ".join(KINDS)}),
sides {", ".join(map(str, SIDES))} and, every {EVERY_NTH_FULL_SIZE}th, 224, each with one to three true boxes, at 1,000
thresholds, largest contour and all contours. Of {maps:,} maps **{different} differ** in any score from a search
for contours.
"""
    results.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(different > 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
