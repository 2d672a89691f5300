"""The evaluator's boxes against a search for contours: ``python -m benchmarks.evaluator [MAPS]``.

Both are timed in turns, in one thread, on random maps upsampled to 224x224: the search at each distinct cut, the search
at each of the 1,000 thresholds, and the component tree. What counts is the CPU time of the thread, so that other
processes do not. Then images per second of the whole evaluator are taken, by number of workers. Last, `MAPS` generated
maps (10,000 unless given) of all kinds are scored at all thresholds both ways, and every difference is counted. Writes
``results/evaluator.md``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.scoremaps import KINDS, Map, true_boxes, upsampled
from iir_fast.data import GroundTruth
from iir_fast.evaluation import Evaluator, ScoredImage, resize_scoremap
from iir_fast.evaluation.boxes import box_iou, thresholds
from iir_fast.evaluation.contours import score_contours, search_contours
from iir_fast.evaluation.evaluator import usable_cores
from iir_fast.evaluation.library import compiled

RESULTS = Path(__file__).parent / "results" / "evaluator.md"
SIDES = (5, 9, 16, 33, 64)
EVERY_NTH_FULL_SIZE = 40
TIMED_MAPS = 24
CELLS = (14, 7, 28)
IMAGES, ROUNDS = 2000, 3
SEARCH, SEARCH_ALL = "search at distinct cuts", "search at 1,000 thresholds"
INTRODUCTION = """# The evaluator against a search for contours

Made by `python -m benchmarks.evaluator`. {machine}
Commit {commit}. Python {python}, torch {torch}, OpenCV {opencv}.

## How fast

One score map of 224x224 at 1,000 thresholds, MaxBoxAcc and MaxBoxAccV2, milliseconds of one core's time. Every map is
random, upsampled from the size given, and all ways take turns on it. Ratios to the component tree are medians over
{maps} maps, with quartiles in brackets.

"""

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


def time_in_turns(cells: int, maps: int = TIMED_MAPS, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds that each map [cells, cells] upsampled takes, by what was timed."""
    random, taus = np.random.default_rng(seed), thresholds(0.001)
    ways: dict[str, Callable[[Map, NDArray[np.float64], NDArray[np.int64]], Scores]] = {
        "component tree": score_contours,
        SEARCH: search_contours,
        SEARCH_ALL: search_every_threshold,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(maps):
        scoremap, boxes = upsampled(random, 224, cells), true_boxes(random, 224)
        for name, way in ways.items():
            start = time.thread_time()
            way(scoremap, taus, boxes)
            found[name].append(1000 * (time.thread_time() - start))
    return found


def images_per_second(workers: int, images: int) -> float:
    """Of the whole evaluator: maps of 14x14 resized, boxes at 100 thresholds, pixels on a mask of 500x375."""
    maps = torch.rand(64, 14, 14, generator=torch.Generator().manual_seed(0))
    mask = np.zeros((375, 500), np.uint8)
    mask[100:300, 100:400] = 1
    truth = GroundTruth((500, 375), np.array([[100.0, 100, 400, 300]]), (mask,))

    def load(i: int) -> ScoredImage:
        return ScoredImage(str(i), resize_scoremap(maps[i % len(maps)]), 0, np.arange(5), truth)

    start = time.perf_counter()
    Evaluator("generated", workers=workers).run(range(images), load)
    return images / (time.perf_counter() - start)


def table_of_times(maps: int) -> list[str]:
    """A row for each size of maps."""
    lines = [f"| from | component tree | {SEARCH} | {SEARCH_ALL} |", "| --- | --- | --- | --- |"]
    for cells in CELLS:
        found = time_in_turns(cells, maps)
        tree = found.pop("component tree")
        row = [f"{cells}x{cells}", f"{statistics.median(tree):.2f} ms"]
        for others in found.values():
            low, ratio, high = statistics.quantiles([other / own for other, own in zip(others, tree, strict=True)], n=4)
            row.append(f"{statistics.median(others):.1f} ms, **{ratio:.1f} times** ({low:.1f} to {high:.1f})")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def table_of_workers(images: int) -> list[str]:
    """A row for each number of workers up to that of the cores, all taking turns."""
    counts = sorted({1, 2, usable_cores()})
    rounds = [[images_per_second(workers, images) for workers in counts] for _ in range(ROUNDS)]
    lines = ["| workers | images/s | times one worker |", "| --- | --- | --- |"]
    for column, workers in enumerate(counts):
        speed = statistics.median(each[column] for each in rounds)
        ratio = statistics.median(each[column] / each[0] for each in rounds)
        lines.append(f"| {workers} | {speed:.0f} | {ratio:.2f} |")
    return lines


def main(maps: int, results: Path = RESULTS, timed_maps: int = TIMED_MAPS, images: int = IMAGES) -> None:
    if compiled() is None:
        sys.exit("The evaluator was installed without a C++ compiler; there is nothing to compare.")
    machine = describe("cpu")
    text = INTRODUCTION.format(
        machine=f"Machine: {machine['processor']}, {usable_cores()} cores.",
        commit=_commit(),
        python=machine["python"],
        torch=machine["torch"],
        opencv=cv2.__version__,
        maps=timed_maps,
    )
    text += "\n".join(table_of_times(timed_maps))
    text += "\n\n## How many images\n\nThe whole evaluator with threads, from a network's map of 14x14 to boxes at 100 "
    text += f"thresholds and the pixels on a mask of 500x375; wall time over {images:,} images.\n\n"
    text += "\n".join(table_of_workers(images))
    different = count_differences(maps)
    text += f"\n\n## How exact\n\n{maps:,} generated maps of {len(KINDS)} kinds at 1,000 thresholds, both metrics: "
    text += f"{different} differ from OpenCV's contours.\n"
    results.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(different > 0)


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=12", "HEAD") + changed


if __name__ == "__main__":
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
