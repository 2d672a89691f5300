"""The metrics of one evaluation, and the formulas that turn counts into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

V1_DELTA = 0.5
"""The IoU from which on a box is correct, of MaxBoxAcc and of GT-known and Top-k localization."""


@dataclass(frozen=True)
class FixedThreshold:
    """The one threshold that GT-known, Top-1 and Top-5 localization use for every image.

    Attributes:
        value: tau in [0, 1).
        chosen_on: name of the split it was chosen on.

    Raises:
        ValueError: `value` is outside [0, 1).
    """

    value: float
    chosen_on: str

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1:
            raise ValueError(f"value is {self.value}; a threshold in [0, 1) is accepted.")


@dataclass(frozen=True)
class BoxCurve:
    """Share of correctly boxed images at every threshold.

    Attributes:
        delta: the IoU from which on a box is correct.
        accuracy: percent of the images at each of `thresholds(step)`.
        best: the curve's maximum, in percent.
        threshold: the tau of the maximum, the first of several; chosen on the very split it is reported on, as the
            protocol has it.
    """

    delta: float
    accuracy: tuple[float, ...]
    best: float
    threshold: float


@dataclass(frozen=True)
class Peak:
    """The largest value of a metric over all thresholds.

    Attributes:
        best: in percent.
        threshold: the tau of it, the first of several; chosen on the very split it is reported on. A pixel with a score
            of tau or more is called object: 1.0 leaves the scores of 1 alone, 2.0 nothing.
    """

    best: float
    threshold: float


@dataclass(frozen=True)
class TopPeaks:
    """Top-1 and Top-5 localization by the other rule in use, each at its own best threshold.

    That is the rule of the code of Zhu et al., "Weakly Supervised Object Localization as Domain Adaption" (CVPR 2022),
    and of Rony et al., "Deep Weakly-Supervised Learning Methods for Classification and Localization in Histology
    Images: A Survey" (MELBA 2023): MaxBoxAcc, or MaxBoxAccV2, of the images whose class is right, in percent of all.

    Attributes:
        contours: whether the largest contour's box has to be correct, or any contour's.
        delta: the IoU from which on a box is correct.
        top1: the true class is the best one.
        top5: the true class is among the five best; None where fewer than five were ranked.
    """

    contours: Literal["largest", "any"]
    delta: float
    top1: Peak
    top5: Peak | None


@dataclass(frozen=True)
class Metrics:
    """The result of one evaluation: every metric in percent, None where the data does not allow it.

    Attributes:
        split: name of the evaluated split; of other data than the run's own, with these.
        images: number of images.
        with_boxes: how many of them have a box; the figures that ask for boxes are of these.
        step: distance of two thresholds.
        max_box_acc: MaxBoxAcc (V1): largest contour, IoU >= 0.5, maximum over tau.
        max_box_acc_v2: MaxBoxAccV2: all contours, mean over IoU >= 0.3, 0.5, 0.7 of each one's maximum over tau.
        pxap: area under the pixel precision-recall curve.
        piou: peak IoU of the objects' pixels, as `pixel_peaks` has it.
        miou: peak of the mean of objects' and background's IoU.
        gt_known_loc: IoU >= 0.5 of the largest contour's box at the one fixed threshold.
        top1_loc: GT-known and the true class is the best one.
        top5_loc: GT-known and the true class is among the five best; None where fewer than five were ranked.
        fixed_threshold: the threshold of the last three.
        no_box_gt_known_loc: as `gt_known_loc`, with every image cut at its own threshold, which no box has chosen.
        no_box_top1_loc: as `top1_loc`, likewise.
        no_box_top5_loc: as `top5_loc`, likewise.
        top1_accuracy: the true class is the best one, wherever the box; None without ranked classes.
        top5_accuracy: the true class is among the five best; None where fewer than five were ranked.
        errors: kinds of error at the fixed threshold, as `error_kind` has them; None where images were not
            judged one by one.
        curve_v1: the curve behind `max_box_acc`.
        curves_v2: the curves behind `max_box_acc_v2`, one per delta; empty where there are no boxes.
        top_peaks: `top1_loc` and `top5_loc` by the other rule in use, for the largest contour and for any, and for each
            delta; empty where there are no boxes or nothing was classified.
        data: the source of the evaluated data, by an absolute path, where that is known.
    """

    split: str
    images: int
    step: float
    with_boxes: int = 0
    max_box_acc: float | None = None
    max_box_acc_v2: float | None = None
    pxap: float | None = None
    piou: Peak | None = None
    miou: Peak | None = None
    gt_known_loc: float | None = None
    top1_loc: float | None = None
    top5_loc: float | None = None
    fixed_threshold: FixedThreshold | None = None
    no_box_gt_known_loc: float | None = None
    no_box_top1_loc: float | None = None
    no_box_top5_loc: float | None = None
    top1_accuracy: float | None = None
    top5_accuracy: float | None = None
    errors: Mapping[str, float] | None = None
    curve_v1: BoxCurve | None = None
    curves_v2: tuple[BoxCurve, ...] = ()
    top_peaks: tuple[TopPeaks, ...] = ()
    data: str | None = None

    @property
    def fixed_threshold_origin(self) -> str | None:
        """The split that chose the fixed threshold, in words that tell when it is the evaluated one itself."""
        return None if self.fixed_threshold is None else self._origin(self.fixed_threshold.chosen_on)

    def __repr__(self) -> str:
        known = {name: getattr(self, name) for name in ("max_box_acc_v2", "gt_known_loc", "pxap", "top1_accuracy")}
        figures = [f"{name} {value:.1f}" for name, value in known.items() if value is not None]
        return f"Metrics({self.split}, {self.images} images: {', '.join(figures)})"

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as a dictionary that `json` can write."""
        fixed, curve_v1 = self.fixed_threshold, self.curve_v1
        return vars(self) | {
            "fixed_threshold": fixed and {"value": fixed.value, "chosen_on": self.fixed_threshold_origin},
            "piou": self.piou and self._peak(self.piou),
            "miou": self.miou and self._peak(self.miou),
            "errors": self.errors and dict(self.errors),
            "curve_v1": curve_v1 and self._curve(curve_v1),
            "curves_v2": [self._curve(curve) for curve in self.curves_v2],
            "top_peaks": [
                vars(each) | {"top1": self._peak(each.top1), "top5": each.top5 and self._peak(each.top5)}
                for each in self.top_peaks
            ],
        }

    def _curve(self, curve: BoxCurve) -> dict[str, Any]:
        return {"delta": curve.delta, **self._peak(curve), "accuracy": list(curve.accuracy)}

    def _peak(self, peak: Peak | BoxCurve) -> dict[str, Any]:
        return {"best": peak.best, "threshold": peak.threshold, "chosen_on": self._origin(self.split)}

    def _origin(self, chosen_on: str) -> str:
        return f"{chosen_on}, the split it is reported on" if chosen_on == self.split else chosen_on


def check_stored(metrics: Mapping[str, Any]) -> None:
    """Raise ValueError unless what JSON has of each figure could be what `Metrics.to_dict` makes of one.

    Figures may be missing, as in what earlier versions wrote, and there may be others.
    """
    for name, hint in get_type_hints(Metrics).items():
        if name in metrics and not _fits(metrics[name], hint):
            raise ValueError(f"{name} is {str(metrics[name])[:80]}")
    if fixed := metrics.get("fixed_threshold"):
        FixedThreshold(fixed["value"], fixed["chosen_on"])


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether JSON could have got a value from one of that type."""
    inside = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_fits(each, inside[0]) for each in value)
    if get_origin(hint) is Mapping:
        return isinstance(value, dict) and all(_fits(each, inside[1]) for each in value.values())
    if get_origin(hint) is Literal:
        return value in inside
    if inside:
        return any(_fits(value, each) for each in inside)
    if is_dataclass(hint):
        return isinstance(value, dict) and all(_fits(value.get(name), of) for name, of in get_type_hints(hint).items())
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e300  # NaN fails, too
    return type(value) is hint


def peak(values: NDArray[np.float64], taus: NDArray[np.float64]) -> Peak:
    """Find the largest of values [T] in percent, and the first threshold of [T] or more that has it."""
    first = int(values.argmax())
    return Peak(float(values[first]), float(taus[first]))


def box_curve(correct: NDArray[np.int64], images: int, delta: float, taus: NDArray[np.float64]) -> BoxCurve:
    """Turn the number of correct images int64 [T] per threshold float64 [T] into a curve with its maximum."""
    accuracy = correct * 100.0 / images
    found = peak(accuracy, taus)
    return BoxCurve(delta, tuple(accuracy.tolist()), found.best, found.threshold)


def pixel_average_precision(foreground: NDArray[np.int64], background: NDArray[np.int64]) -> float:
    """Compute PxAP in percent: the area under the precision-recall curve of all pixels of a data set.

    With the bins taken from the highest scores down, it is 100 sum_i precision[i + 1] (recall[i + 1] - recall[i]).

    Args:
        foreground: int64 [bins], pooled histogram of the scores on the objects, lowest scores first.
        background: int64 [bins], the same off the objects.

    Raises:
        ValueError: there is no foreground pixel at all.
    """
    true_positives = foreground[::-1].cumsum()
    predicted = true_positives + background[::-1].cumsum()
    if true_positives[-1] == 0:
        raise ValueError("PxAP needs at least one foreground pixel, but every mask of the split is empty.")
    recall = true_positives / true_positives[-1]
    precision = true_positives / np.maximum(predicted, 1)
    return float((precision[1:] * np.diff(recall)).sum() * 100)


def pixel_peaks(
    foreground: NDArray[np.int64], background: NDArray[np.int64], edges: NDArray[np.float64]
) -> tuple[Peak, Peak]:
    """Find pIoU and mIoU in the two histograms that PxAP is made of.

    With TP, FP and FN counted over all pixels of all images at a threshold, the IoU of the objects is TP / (TP + FP +
    FN), that of the background TN / (TN + FP + FN), and 0 where there is no such pixel. pIoU is the largest IoU of the
    objects over all thresholds: the peak of the IoU-threshold curve of Zhang et al., "Rethinking Localization Map"
    (2020), counted as in the code of Zhu et al., "Weakly Supervised Object Localization as Domain Adaption" (CVPR
    2022). mIoU is the largest mean of both, as in the code of Rony et al., "Deep Weakly-Supervised Learning Methods for
    Classification and Localization in Histology Images: A Survey" (MELBA 2023).

    Args:
        foreground, background: as `pixel_average_precision` takes them.
        edges: float64 [bins + 1], ascending; each lower edge of a bin is a threshold.
    """
    true_positives, false_positives = foreground[::-1].cumsum()[::-1], background[::-1].cumsum()[::-1]
    objects, others = int(foreground.sum()), int(background.sum())
    of_objects = true_positives / np.maximum(objects + false_positives, 1)
    of_others = (others - false_positives) / np.maximum(others + objects - true_positives, 1)
    return peak(of_objects * 100, edges), peak((of_objects + of_others) * 50, edges)
