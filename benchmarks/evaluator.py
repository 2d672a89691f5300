"""How fast the evaluator is: ``python -m benchmarks.evaluator``.

Its component tree and a search for contours, at each distinct cut and at each of the 1,000 thresholds, take turns in
one thread on random maps upsampled to 224x224. What counts is the CPU time of the thread, so that other processes do
not. Then images per second of the whole evaluator are taken by the clock, by number of workers: let the machine be
otherwise idle. Writes ``results/evaluator.md``; a minute on two cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.exactness import Scores, search_every_threshold
from benchmarks.machine import describe
from benchmarks.scoremaps import Map, true_boxes, upsampled
from iir_fast.app.machine import commit
from iir_fast.data import GroundTruth
from iir_fast.evaluation import Evaluator, ScoredImage, resize_scoremap
from iir_fast.evaluation.boxes import thresholds
from iir_fast.evaluation.contours import score_contours, search_contours
from iir_fast.evaluation.evaluator import usable_cores
from iir_fast.evaluation.library import compiled

RESULTS = Path(__file__).parent / "results" / "evaluator.md"
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
WORKERS = """
## How many images

The whole evaluator with threads, from a network's map of 14x14 to boxes at 100 thresholds and the pixels on a mask of
500x375; wall time over {images:,} images, median of rounds in which the numbers of workers take turns.

"""


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


def main(results: Path = RESULTS, maps: int = TIMED_MAPS, images: int = IMAGES) -> None:
    if compiled() is None:
        sys.exit("The evaluator was installed without a C++ compiler; there is nothing to compare.")
    machine = describe("cpu")
    text = INTRODUCTION.format(
        machine=f"Machine: {machine['processor']}, {usable_cores()} cores.",
        commit=commit(),
        python=machine["python"],
        torch=machine["torch"],
        opencv=cv2.__version__,
        maps=maps,
    )
    text += "\n".join(table_of_times(maps))
    text += "\n" + WORKERS.format(images=images)
    text += "\n".join(table_of_workers(images))
    results.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    main()
