"""The evaluator: score maps in, the metrics of weakly supervised localization out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.machine import usable_cores
from iir_fast.app.threads import in_order
from iir_fast.evaluation.boxes import thresholds
from iir_fast.evaluation.measurement import Measurement, ScoredImage, measure
from iir_fast.evaluation.metrics import (
    V1_DELTA,
    FixedThreshold,
    Metrics,
    TopPeaks,
    box_curve,
    peak,
    pixel_average_precision,
    pixel_peaks,
)
from iir_fast.evaluation.verdicts import Verdict, judge

Item = TypeVar("Item")

V2_DELTAS = (0.3, 0.5, 0.7)
TOP_KS = (1, 5)
CONTOURS: tuple[Literal["largest", "any"], ...] = ("largest", "any")
"""Whose box has to be correct, that of the largest contour or any; in this order they are counted."""
BATCH = 4
"""Images that a worker takes at once: handing over each one costs a fifth of two workers' speed."""


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the score maps of one split.

    The protocol is that of Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right" (CVPR 2020);
    GT-known, Top-1 and Top-5 localization are added to it.

    Images are measured by a pool of threads and their results added up in the order of the images, so the number of
    workers never changes a figure. Threads rather than processes: what takes time on an image (reading, resizing,
    boxes, histograms) runs in compiled code without the interpreter lock, whereas a process first imports torch for
    seconds, has every score map copied to it and makes the calling script guard its main module. On two cores two
    threads take about 1.9 times as many images per second as one (`python -m benchmarks.evaluator`).

    Attributes:
        split: name of the split that is evaluated.
        step: distance of two thresholds tau; the protocol's training runs use 0.001.
        fixed_threshold: the tau of GT-known, Top-1 and Top-5 localization and the split that chose it; None: the tau
            of the best MaxBoxAcc on the evaluated split itself, and the result says so.
        workers: number of threads, by default one for each core this process may use; 0: all in the calling thread.

    Raises:
        ValueError: `step` is outside (0, 1] or `workers` is negative.
    """

    split: str
    step: float = 0.01
    fixed_threshold: FixedThreshold | None = None
    workers: int = field(default_factory=usable_cores)

    def __post_init__(self) -> None:
        thresholds(self.step)
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; 0 or a positive number of threads is accepted.")

    @overload
    def run(self, items: Iterable[ScoredImage], *, on_image: Callable[[int], None] = ...) -> Metrics: ...

    @overload
    def run(
        self, items: Iterable[Item], load: Callable[[Item], ScoredImage], on_image: Callable[[int], None] = ...
    ) -> Metrics: ...

    def run(
        self,
        items: Iterable[Any],
        load: Callable[[Any], ScoredImage] | None = None,
        on_image: Callable[[int], None] = lambda images: None,
    ) -> Metrics:
        """Evaluate all images of a split.

        Args:
            items: the images, or what `load` makes them of; read one by one and only a few ahead of the workers, so a
                generator keeps memory flat.
            load: makes the image of an item, in a worker: the place to read files and to resize maps.
            on_image: called with 1 in the calling thread for each measured image.

        Returns:
            The metrics.

        Raises:
            ValueError: there is no image, a score map or a mask is malformed, or masks or ranked classes are there for
                some images and missing for others.
        """
        taus = thresholds(self.step)
        edges = np.append(taus, [1.0, 2.0, 3.0])
        # The fixed threshold need not lie on the grid, so it is measured beside it, as one more threshold.
        measured = taus if self.fixed_threshold is None else np.append(taus, self.fixed_threshold.value)
        totals = _Totals(len(measured), len(edges) - 1)

        def load_and_measure(item: Any) -> Measurement:
            return measure(item if load is None else load(item), measured, edges)

        with closing(in_order(load_and_measure, items, 2 * self.workers, self.workers, BATCH)) as measurements:
            for measurement in measurements:
                totals.add(measurement)
                on_image(1)
        if totals.images == 0:
            raise ValueError(f"split {self.split!r} has no image to evaluate; at least one is needed.")
        top1, top5 = totals.of_ranked(totals.classified, totals.images)
        metrics = Metrics(
            self.split, totals.images, self.step, totals.with_boxes, top1_accuracy=top1, top5_accuracy=top5
        )
        if totals.have("masks"):
            histograms = totals.foreground, totals.background
            piou, miou = pixel_peaks(*histograms, edges)
            metrics = replace(metrics, pxap=pixel_average_precision(*histograms), piou=piou, miou=miou)
        return self._of_boxes(metrics, totals, taus) if totals.with_boxes else metrics

    def judge(
        self, items: Iterable[Item], load: Callable[[Item], ScoredImage], threshold: float | None
    ) -> Iterator[Verdict]:
        """Judge all images of a split, one by one, at one threshold.

        Args:
            items, load: as `run` takes them.
            threshold: as `judge` takes it; that of GT-known localization is `metrics.fixed_threshold.value`.

        Raises:
            ValueError: as `judge`.
        """
        return in_order(lambda item: judge(load(item), threshold), items, 2 * self.workers, self.workers, BATCH)

    def _of_boxes(self, metrics: Metrics, totals: _Totals, taus: NDArray[np.float64]) -> Metrics:
        """Add the metrics that boxes allow."""
        grid, images, middle = slice(len(taus)), totals.with_boxes, V2_DELTAS.index(V1_DELTA)
        of_largest, of_any = totals.correct
        curve_v1 = box_curve(of_largest[middle, grid], images, V1_DELTA, taus)
        curves_v2 = tuple(
            box_curve(correct[grid], images, delta, taus) for correct, delta in zip(of_any, V2_DELTAS, strict=True)
        )
        column = int(of_largest[middle].argmax()) if self.fixed_threshold is None else -1
        top1, top5 = totals.of_ranked(totals.correct_top[:, 0, middle, column], images)
        own1, own5 = totals.of_ranked(totals.own_correct.cumsum()[:-1], images)
        return replace(
            metrics,
            max_box_acc=curve_v1.best,
            max_box_acc_v2=float(np.mean([curve.best for curve in curves_v2])),
            gt_known_loc=float(of_largest[middle, column] * 100.0 / images),
            top1_loc=top1,
            top5_loc=top5,
            no_box_gt_known_loc=float(totals.own_correct.sum() * 100.0 / images),
            no_box_top1_loc=own1,
            no_box_top5_loc=own5,
            fixed_threshold=self.fixed_threshold or FixedThreshold(curve_v1.threshold, chosen_on=self.split),
            curve_v1=curve_v1,
            curves_v2=curves_v2,
            top_peaks=totals.top_peaks(taus) if totals.fewest_ranked else (),
        )


class _Totals:
    """Sums over the measured images; of constant size however many there are."""

    def __init__(self, num_taus: int, num_bins: int) -> None:
        self.images = self.with_boxes = 0
        # By how the true class was ranked: first, among the five best, worse or not at all; so an image adds to one.
        self._correct = np.zeros((len(TOP_KS) + 1, len(CONTOURS), len(V2_DELTAS), num_taus), np.int64)
        self.own_correct = np.zeros(len(TOP_KS) + 1, np.int64)
        self.foreground = np.zeros(num_bins, np.int64)
        self.background = np.zeros(num_bins, np.int64)
        self.classified = np.zeros(len(TOP_KS), np.int64)
        self.fewest_ranked = 0
        self._first: dict[tuple[str, bool], str] = {}

    @property
    def correct(self) -> NDArray[np.int64]:
        """Images whose box is right: int64 [2, 3, T], by rule for contours, IoU and threshold."""
        correct: NDArray[np.int64] = self._correct.sum(axis=0)
        return correct

    @property
    def correct_top(self) -> NDArray[np.int64]:
        """Those of them whose class is right, too: int64 [2, 2, 3, T], first the best class, then the five best."""
        return self._correct.cumsum(axis=0)[:-1]

    def have(self, what: str) -> bool:
        return (what, True) in self._first

    def of_ranked(self, correct: NDArray[np.int64], images: int) -> tuple[float | None, float | None]:
        """Turn numbers of correct images, int64 [2], into Top-1 and Top-5 in percent; None: too few were ranked."""
        top1, top5 = (
            float(count * 100.0 / images) if self.fewest_ranked >= k else None
            for count, k in zip(correct, TOP_KS, strict=True)
        )
        return top1, top5

    def top_peaks(self, taus: NDArray[np.float64]) -> tuple[TopPeaks, ...]:
        """Find the best thresholds of Top-1 and Top-5 localization, for each rule for contours and each IoU."""
        curves = self.correct_top[..., : len(taus)] * 100.0 / self.with_boxes
        peaks = []
        for rule, contours in enumerate(CONTOURS):
            for number, delta in enumerate(V2_DELTAS):
                top1, top5 = (peak(curve[rule, number], taus) for curve in curves)
                peaks.append(TopPeaks(contours, delta, top1, top5 if self.fewest_ranked >= TOP_KS[1] else None))
        return tuple(peaks)

    def add(self, image: Measurement) -> None:
        parts = {"masks": image.foreground, "ranked classes": image.label_rank}
        for what, found in parts.items():
            self._first.setdefault((what, found is not None), image.image_id)
            if (what, True) in self._first and (what, False) in self._first:
                raise ValueError(
                    f"image {self._first[what, False]!r} has no {what}, while image {self._first[what, True]!r} has "
                    f"them; either all images of a split have {what} or none has."
                )
        self.fewest_ranked = min(image.ranked, self.fewest_ranked) if self.images else image.ranked
        self.images += 1
        if image.label_rank is not None:
            self.classified += image.label_rank < np.array(TOP_KS)
        if image.largest_iou is not None and image.best_iou is not None and image.own_iou is not None:
            self.with_boxes += 1
            correct = np.stack([image.largest_iou, image.best_iou])[:, None] >= np.array(V2_DELTAS)[:, None]
            rank = sum(image.label_rank is None or image.label_rank >= k for k in TOP_KS)
            self._correct[rank] += correct
            self.own_correct[rank] += image.own_iou >= V1_DELTA
        if image.foreground is not None and image.background is not None:
            self.foreground += image.foreground
            self.background += image.background
