"""The evaluator as a whole: its rules by hand, and every figure against a plain reading of the protocol's text."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from iir_fast.data import GroundTruth
from iir_fast.evaluation import Evaluator, FixedThreshold, Metrics, Peak, ScoredImage
from iir_fast.evaluation.evaluator import BATCH, usable_cores

Array = NDArray[Any]
NO_BOXES = np.zeros((0, 4))


# --- the protocol, written down once more, without any thought for speed --------------------------------------------


@dataclass
class Expected:
    v1: Array
    v2: list[Array]
    pxap: float
    piou: Array
    miou: Array


def iou_of(a: list[int], b: list[int]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return width * height / (area_a + area_b - width * height)


def boxes_of(scoremap: Array, tau: float) -> tuple[list[int], list[list[int]]]:
    """The box of the largest contour and those of all contours."""
    image = (scoremap * 255).astype(np.uint8)
    _, cut = cv2.threshold(image, int(tau * np.max(image)), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(cut, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [0, 0, 0, 0], [[0, 0, 0, 0]]
    rectangles = [cv2.boundingRect(contour) for contour in (max(contours, key=cv2.contourArea), *contours)]
    boxes = [[x, y, min(x + w, 223), min(y + h, 223)] for x, y, w, h in rectangles]
    return boxes[0], boxes[1:]


def plain_protocol(images: list[ScoredImage], step: float) -> Expected:
    taus = np.arange(0, 1, step)
    v1, v2 = np.zeros(len(taus)), [np.zeros(len(taus)) for _ in range(3)]
    true_scores, false_scores = [], []
    for image in images:
        assert image.ground_truth.ignore is not None
        width, height = image.ground_truth.size
        true_boxes = [
            [int(x0 * 224 / width), int(y0 * 224 / height), int(x1 * 224 / width), int(y1 * 224 / height)]
            for x0, y0, x1, y1 in image.ground_truth.boxes.tolist()
        ]
        for i, tau in enumerate(taus):
            largest, contours = boxes_of(image.scoremap, tau)
            v1[i] += max(iou_of(largest, true) for true in true_boxes) >= 0.5
            best = max(iou_of(box, true) for box in contours for true in true_boxes)
            for correct, delta in zip(v2, (0.3, 0.5, 0.7), strict=True):
                correct[i] += best >= delta
        masks: list[Array] = [*image.ground_truth.masks, image.ground_truth.ignore]
        floats = [mask.astype(np.float32) for mask in masks]
        scaled = [cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST) > 0.5 for mask in floats]
        foreground = np.any(scaled[:-1], axis=0)
        true_scores.append(image.scoremap[foreground])
        false_scores.append(image.scoremap[~foreground & ~scaled[-1]])
    edges = [*taus, 1, 2, 3]
    tp = np.histogram(np.concatenate(true_scores), edges)[0].astype(float)[::-1].cumsum()
    fp = np.histogram(np.concatenate(false_scores), edges)[0].astype(float)[::-1].cumsum()
    recall = tp / tp[-1]
    pxap = sum(
        100 * tp[i + 1] / (tp[i + 1] + fp[i + 1]) * (recall[i + 1] - recall[i])
        for i in range(len(tp) - 1)
        if tp[i + 1] + fp[i + 1] > 0
    )
    fn, tn = tp[-1] - tp, fp[-1] - fp
    of_objects, of_others = 100 * tp / (tp + fp + fn), 100 * tn / (tn + fp + fn)
    n = len(images)
    curves = v1 * 100 / n, [correct * 100 / n for correct in v2]
    return Expected(*curves, pxap, of_objects, (of_objects + of_others) / 2)


# --- the maps it is compared on --------------------------------------------------------------------------------------


def unit(scoremap: Array) -> Array:
    from_zero: Array = scoremap - scoremap.min()
    return np.asarray(from_zero / from_zero.max())


def hard_maps() -> Iterator[tuple[str, Array]]:
    rng = np.random.default_rng(0)
    for side in (4, 7, 14, 14):
        yield "smooth", unit(cv2.resize(rng.random((side, side)), (224, 224), interpolation=cv2.INTER_CUBIC))
    yield "blurred noise", unit(cv2.GaussianBlur(rng.random((224, 224)), (0, 0), 3))
    noise = np.zeros((224, 224))
    noise[80:100, 60:90] = rng.random((20, 30))
    yield "noise", noise
    yield "zeros", np.zeros((224, 224))
    yield "ones", np.ones((224, 224))
    blobs = cv2.resize(rng.random((6, 6)), (224, 224), interpolation=cv2.INTER_CUBIC)
    yield "saturated", np.clip(3 * unit(blobs) - 1, 0, 1)
    yield "never one", 0.37 * unit(blobs)
    pixel = np.zeros((224, 224))
    pixel[223, 223] = 1
    yield "one pixel", pixel
    y, x = np.mgrid[:224, :224]
    radius = np.hypot(x - 110, y - 120)
    yield "nested holes", unit(np.cos(radius / 9))
    yield "border", unit(np.maximum(abs(x - 111.5), abs(y - 111.5)) ** 3)
    yield "blocks", np.kron(rng.integers(0, 4, (14, 14)) / 3, np.ones((16, 16)))


def annotated(scoremap: Array, index: int) -> ScoredImage:
    """A score map with a ground truth that some of its thresholds hit, others miss."""
    rng = np.random.default_rng(index)
    width, height = (224, 224) if index % 2 else (317, 211)
    boxes = []
    for tau in (0.6, 0.9)[: 1 + index % 2]:
        x0, y0, x1, y1 = boxes_of(scoremap, tau)[0]
        jitter = rng.uniform(-0.3, 0.3, 4) * np.array([x1 - x0, y1 - y0] * 2)
        box = (np.array([x0, y0, x1, y1]) + jitter).clip(0, 223) * np.array([width, height] * 2) / 224
        boxes.append(box)
    mask = np.zeros((2, height, width), np.uint8)
    mask[0, height // 4 : height // 2, width // 4 : width // 2] = 255
    mask[1, height // 3 : height - 20, width // 3 : width - 30] = 1
    ignore = np.zeros((height, width), np.uint8)
    ignore[: height // 2] = 1
    truth = GroundTruth((width, height), np.array(boxes), tuple(mask), ignore)
    return ScoredImage(f"{index}.jpg", scoremap, index % 3, np.roll(np.arange(6), index), truth)


@pytest.fixture(scope="module")
def images() -> list[ScoredImage]:
    return [annotated(scoremap, index) for index, (_, scoremap) in enumerate(hard_maps())]


# --- every figure is the protocol's ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.001, 0.01, 0.3])
def test_every_figure_is_the_protocols(images: list[ScoredImage], step: float) -> None:
    expected = plain_protocol(images, step)
    metrics = Evaluator("test", step).run(images)
    assert (metrics.split, metrics.step) == ("test", step)
    assert metrics.curve_v1 is not None
    assert metrics.curve_v1.delta == 0.5
    assert metrics.curve_v1.accuracy == tuple(expected.v1)
    assert metrics.max_box_acc == expected.v1.max()
    assert metrics.curve_v1.threshold == np.arange(0, 1, step)[expected.v1.argmax()]
    assert [curve.accuracy for curve in metrics.curves_v2] == [tuple(curve) for curve in expected.v2]
    assert [curve.delta for curve in metrics.curves_v2] == [0.3, 0.5, 0.7]
    assert metrics.max_box_acc_v2 == np.mean([curve.max() for curve in expected.v2])
    assert metrics.pxap == pytest.approx(expected.pxap, rel=1e-12)
    for found, curve in ((metrics.piou, expected.piou), (metrics.miou, expected.miou)):
        assert found is not None
        assert found.best == pytest.approx(curve.max(), rel=1e-12)
        assert found.threshold == [*np.arange(0, 1, step), 1.0, 2.0][::-1][curve.argmax()]
    # The comparison means something only where thresholds matter and the two versions differ.
    assert expected.v1.min() < expected.v1.max() < 100
    assert not np.array_equal(expected.v1, expected.v2[1])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(images: list[ScoredImage], workers: int) -> None:
    alone = Evaluator("test", 0.05, workers=0).run(images)
    assert Evaluator("test", 0.05, workers=workers).run(images) == alone


@pytest.mark.parametrize("judges", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow_with_the_number_of_images(workers: int, judges: bool) -> None:
    freed: list[int] = []
    alive: list[int] = []

    def stream() -> Iterator[ScoredImage]:
        for index in range(100):
            scoremap = np.zeros((224, 224))
            weakref.finalize(scoremap, freed.append, index)
            alive.append(index + 1 - len(freed))
            yield ScoredImage(str(index), scoremap, 0, None, GroundTruth((9, 9), np.array([[0.0, 0, 5, 5]])))

    evaluator = Evaluator("test", 0.1, workers=workers)
    if judges:
        assert len(list(evaluator.judge(stream(), lambda image: image, 0.5))) == 100
    else:
        assert evaluator.run(stream()).images == 100
    assert max(alive) <= (BATCH * (2 * workers + 2) if workers else 3)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux alone says how much memory is resident")
def test_resident_memory_stays_flat() -> None:
    resident: list[int] = []

    def load(index: int) -> ScoredImage:
        if index % 50 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        scoremap = np.full((224, 224), 0.5)  # 400 KB
        truth = GroundTruth((9, 9), np.array([[0.0, 0, 5, 5]]), (np.ones((9, 9), np.uint8),))
        return ScoredImage(str(index), scoremap, 0, None, truth)

    assert Evaluator("test", 0.1, workers=2).run(range(600), load).images == 600
    # From the hundredth image on; all the maps would take 240 MB.
    assert max(resident[2:]) - resident[2] < 40e6


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_are_loaded_by_the_workers_and_counted_here(images: list[ScoredImage], workers: int) -> None:
    here, loaded_in, counted_in = threading.get_ident(), set(), []

    def load(index: int) -> ScoredImage:
        loaded_in.add(threading.get_ident())
        return images[index]

    found = Evaluator("test", 0.05, workers=workers).run(
        range(len(images)), load, lambda count: counted_in.extend([threading.get_ident()] * count)
    )
    assert found == Evaluator("test", 0.05, workers=0).run(images)
    assert counted_in == [here] * len(images)
    assert (here in loaded_in) == (workers == 0)
    assert len(loaded_in) <= max(workers, 1)


def test_by_default_every_usable_core_works() -> None:
    assert Evaluator("test").workers == usable_cores() >= 1


# --- localization at a fixed threshold -------------------------------------------------------------------------------


def two_level(label: int, ranked: list[int] | None, image_id: str = "a", boxes: Array | None = None) -> ScoredImage:
    """A weak wide square with a strong narrow one inside: the true box is the wide one, found for tau < 0.5."""
    scoremap = np.zeros((224, 224))
    scoremap[20:200, 20:200] = 0.5
    scoremap[20:60, 20:60] = 1
    truth = GroundTruth((224, 224), np.array([[20.0, 20, 200, 200]]) if boxes is None else boxes)
    return ScoredImage(image_id, scoremap, label, None if ranked is None else np.array(ranked), truth)


def test_top_k_asks_for_the_class_and_the_box() -> None:
    ranked = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 0], [1, 2, 3, 4, 5]]
    items = [two_level(0, classes) for classes in ranked]
    found = Evaluator("test", fixed_threshold=FixedThreshold(0.2, "val")).run(items)
    assert (found.gt_known_loc, found.top1_loc, found.top5_loc) == (100, 25, 75)
    missed = Evaluator("test", fixed_threshold=FixedThreshold(0.6, "val")).run(items)
    assert (missed.gt_known_loc, missed.top1_loc, missed.top5_loc) == (0, 0, 0)
    assert missed.max_box_acc == 100
    assert found.top1_accuracy == missed.top1_accuracy == missed.to_dict()["top1_accuracy"] == 25
    assert found.top5_accuracy == missed.top5_accuracy == missed.to_dict()["top5_accuracy"] == 75


def test_the_fixed_threshold_need_not_lie_on_the_grid() -> None:
    # The 8-bit image holds 0.5 as 127: tau = 0.498 cuts at 126 and finds the box, 0.499 cuts at 127.
    for tau, accuracy in ((0.498, 100), (0.499, 0)):
        metrics = Evaluator("test", 0.25, FixedThreshold(tau, "val")).run([two_level(0, None)])
        assert metrics.gt_known_loc == accuracy
        assert metrics.curve_v1 is not None
        assert metrics.curve_v1.accuracy == (100, 100, 0, 0)


def test_a_threshold_chosen_here_is_said_to_be() -> None:
    metrics = Evaluator("test").run([two_level(0, [0])])
    assert metrics.fixed_threshold == FixedThreshold(0.0, "test")  # the first of all the best ones
    assert metrics.fixed_threshold_origin == "test, the split it is reported on"
    assert metrics.gt_known_loc == metrics.max_box_acc == 100
    given = FixedThreshold(0.25, "test")
    assert Evaluator("test", fixed_threshold=given).run([two_level(0, [0])]).fixed_threshold_origin == (
        "test, the split it is reported on"
    )


def test_a_threshold_from_another_split_is_named() -> None:
    given = FixedThreshold(0.25, "val")
    metrics = Evaluator("test", fixed_threshold=given).run([two_level(0, [0])])
    assert metrics.fixed_threshold == given
    assert metrics.fixed_threshold_origin == "val"
    assert metrics.to_dict()["fixed_threshold"] == {"value": 0.25, "chosen_on": "val"}


# --- what cannot be computed, and what is wrong -----------------------------------------------------------------------


def test_figures_without_their_data_are_none() -> None:
    boxes_only = Evaluator("test").run([two_level(0, None)])
    for name in ("pxap", "piou", "miou", "top1_loc", "top5_loc", "top1_accuracy", "top5_accuracy"):
        assert getattr(boxes_only, name) is None
    assert boxes_only.top_peaks == ()
    mask = np.ones((8, 8), np.uint8)
    mask[:4] = 0
    image = ScoredImage("a", np.eye(224), 0, np.array([0]), GroundTruth((8, 8), NO_BOXES, (mask,)))
    masks_only = Evaluator("test").run([image])
    assert masks_only.pxap is not None
    for name in (
        "max_box_acc",
        "max_box_acc_v2",
        "gt_known_loc",
        "no_box_gt_known_loc",
        "top1_loc",
        "fixed_threshold",
        "curve_v1",
    ):
        assert getattr(masks_only, name) is None
    assert masks_only.curves_v2 == masks_only.top_peaks == ()
    assert masks_only.fixed_threshold_origin is None


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_top_5_needs_five_ranked_classes(order: slice) -> None:
    metrics = Evaluator("test").run([two_level(0, [0, 1, 2, 3, 4]), two_level(1, [0, 1])][order])
    assert (metrics.top1_loc, metrics.top5_loc) == (50, None)
    assert (metrics.top1_accuracy, metrics.top5_accuracy) == (50, None)


def test_metrics_can_be_written_as_json(images: list[ScoredImage]) -> None:
    metrics = Evaluator("test", 0.1).run(images)
    read = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert read == metrics.to_dict()
    assert read["images"] == len(images)
    assert read["max_box_acc_v2"] == metrics.max_box_acc_v2
    assert [curve["delta"] for curve in read["curves_v2"]] == [0.3, 0.5, 0.7]
    assert read["curve_v1"]["chosen_on"] == "test, the split it is reported on"
    assert metrics.curve_v1 is not None
    assert (read["curve_v1"]["best"], read["curve_v1"]["threshold"]) == (
        metrics.max_box_acc,
        metrics.curve_v1.threshold,
    )
    assert len(read["curve_v1"]["accuracy"]) == 10
    assert metrics.piou is not None
    peak = {"best": metrics.piou.best, "threshold": metrics.piou.threshold}
    assert read["piou"] == {**peak, "chosen_on": "test, the split it is reported on"}
    assert set(Metrics.__annotations__) == set(read)


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="split 'val' has no image"):
        Evaluator("val").run([])


def test_where_nothing_may_be_called_object_the_peak_is_at_two() -> None:
    corner = np.zeros((224, 224), np.uint8)
    corner[0, 0] = 1
    found = Evaluator("test").run(
        [ScoredImage("a", np.ones((224, 224)), 0, None, GroundTruth((9, 9), NO_BOXES, (corner,)))]
    )
    assert found.miou == Peak(50 * (1 - 1 / 224**2), 2)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_image_without_a_box_counts_for_the_accuracy_alone(order: slice) -> None:
    ranked = [0, 1, 2, 3, 4]
    items = [two_level(0, ranked, "right"), two_level(1, ranked, "wrong"), two_level(0, ranked, "without", NO_BOXES)]
    found = Evaluator("test", 0.25).run(items[order])
    assert (found.images, found.with_boxes) == (3, 2)
    assert (found.max_box_acc, found.max_box_acc_v2, found.gt_known_loc) == (100, 100, 100)
    assert (found.top1_loc, found.top5_loc) == (50, 100)
    assert found.top1_accuracy == pytest.approx(200 / 3)
    assert found.curve_v1 is not None
    assert max(found.curve_v1.accuracy) == 100
    boxed = Evaluator("test", 0.25).run(items[:2])
    assert (boxed.images, boxed.with_boxes, boxed.curves_v2) == (2, 2, found.curves_v2)


def test_missing_ranked_classes_name_the_image() -> None:
    with pytest.raises(ValueError, match="image 'b' has no ranked classes, while image 'a' has them; either all"):
        Evaluator("test").run([two_level(0, [0], "a"), two_level(0, None, "b")])


def test_missing_masks_name_the_image(images: list[ScoredImage]) -> None:
    with pytest.raises(ValueError, match="'plain' has no masks"):
        Evaluator("test", 0.1).run([*images[-2:], two_level(0, [0], "plain")])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_caller(workers: int) -> None:
    broken = ScoredImage("bad.jpg", np.full((224, 224), 2.0), 0, None, GroundTruth((9, 9), np.zeros((1, 4))))
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        Evaluator("test", workers=workers).run([two_level(0, None), broken, two_level(0, None)])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="step is 0"):
        Evaluator("test", step=0)
    with pytest.raises(ValueError, match="workers is -1"):
        Evaluator("test", workers=-1)
