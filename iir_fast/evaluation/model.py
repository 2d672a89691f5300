"""From a network, or from score maps on disk, and a data set to metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iir_fast.data import LocalizationDataset
from iir_fast.evaluation.evaluator import Evaluator
from iir_fast.evaluation.measurement import ScoredImage
from iir_fast.evaluation.metrics import Metrics
from iir_fast.evaluation.ranked_classes import read_ranked_classes
from iir_fast.evaluation.refinement import fit_image, own_threshold, refine
from iir_fast.evaluation.scoremaps import resize_scoremap, save_scoremap
from iir_fast.evaluation.stored_maps import StoredMaps
from iir_fast.evaluation.verdicts import Verdict, error_shares
from iir_fast.models import IIRNetwork, MapName
from iir_fast.names import Refinement

RANKED = 5


@dataclass(frozen=True)
class Predictions:
    """What a network says of every image of a data set, at the resolution of its feature map.

    Attributes:
        maps: for each map float32 [N,h,w] in [0,1], of each image's true class.
        ranked_classes: int64 [N,k], the best classes first, k at most 5; None where nothing was classified.
    """

    maps: dict[MapName, Tensor]
    ranked_classes: NDArray[np.int64] | None


def predict(
    model: IIRNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    maps: tuple[MapName, ...],
    from_features: bool = False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Localize the true class in every image.

    Args:
        model: in eval mode.
        batches: images [B,3,H,W], or shared maps with `from_features`, and labels int64 [B].
        maps: which localization maps to make.
        from_features: the batches hold shared maps.
        on_batch: called with the number of images after each batch.

    Returns:
        Maps and ranked classes of all images, on the CPU.
    """
    device = model.head.weight.device
    parts: dict[MapName, list[Tensor]] = {map: [] for map in maps}
    ranked: list[Tensor] = []
    for inputs, labels in batches:
        found = model.localize(inputs.to(device), labels.to(device), maps, from_features)
        for map in maps:
            parts[map].append(found.maps[map].float().cpu())
        ranked.append(found.logits.topk(min(RANKED, found.logits.shape[1]), dim=1).indices.cpu())
        on_batch(len(labels))
    return Predictions({map: torch.cat(each) for map, each in parts.items()}, torch.cat(ranked).numpy())


def evaluate_maps(
    predictions: Predictions,
    map: MapName,
    dataset: LocalizationDataset,
    evaluator: Evaluator,
    on_image: Callable[[int], None] = lambda images: None,
    save_to: Path | None = None,
    refinement: Refinement = "none",
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Metrics:
    """Compute the metrics of one map.

    Args:
        predictions: made from the images of `dataset` in their order.
        map: which of their maps.
        dataset: gives labels and ground truth.
        evaluator: split name, thresholds and workers.
        on_image: called with 1 for each measured image.
        save_to: folder to write the score maps to, as `evaluate_scoremaps` reads them.
        refinement: how score maps are refined by their images, as `refine` has it.
        on_verdict: called with what becomes of each image at the fixed threshold, in their order, once all are
            measured. Then there are kinds of error among the metrics, and every map is made twice.

    Raises:
        ValueError: as `Evaluator.run`.
    """

    def load(i: int) -> ScoredImage:
        scoremap = resize_scoremap(predictions.maps[map][i])
        if refinement != "none":
            scoremap = refine(scoremap, fit_image(dataset.image(i)), refinement)
        ranked = None if predictions.ranked_classes is None else predictions.ranked_classes[i]
        threshold = own_threshold(scoremap, refinement)
        return ScoredImage(dataset.ids[i], scoremap, dataset.labels[i], ranked, dataset.ground_truth(i), threshold)

    def load_and_save(i: int) -> ScoredImage:
        image = load(i)
        if save_to is not None:
            save_scoremap(save_to, image.image_id, image.scoremap)
        return image

    return _evaluate(evaluator, range(len(dataset)), load_and_save, load, on_image, on_verdict)


def evaluate_scoremaps(
    maps: StoredMaps,
    dataset: LocalizationDataset,
    evaluator: Evaluator,
    on_image: Callable[[int], None] = lambda images: None,
    predictions: Path | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Metrics:
    """Compute the metrics of score maps on disk, whoever made them.

    Args:
        maps: of the images of `dataset`.
        dataset: gives labels and ground truth.
        evaluator: split name, thresholds and workers.
        on_image: called with 1 for each measured image.
        predictions: file of the ranked classes, as `read_ranked_classes` takes it; None: there is no Top-k Loc.
        on_verdict: as `evaluate_maps` takes it; every map is read twice.

    Raises:
        FileNotFoundError: there is no file of predictions.
        ValueError: a score map is not what the protocol accepts, or predictions are malformed.
    """
    ranked = None if predictions is None else read_ranked_classes(predictions, dataset.ids, dataset.classes)

    def load(i: int) -> ScoredImage:
        classes = ranked[i] if ranked else None
        return ScoredImage(dataset.ids[i], maps[i], dataset.labels[i], classes, dataset.ground_truth(i))

    return _evaluate(evaluator, range(len(dataset)), load, load, on_image, on_verdict)


def _evaluate(
    evaluator: Evaluator,
    images: range,
    load: Callable[[int], ScoredImage],
    load_again: Callable[[int], ScoredImage],
    on_image: Callable[[int], None],
    on_verdict: Callable[[Verdict], None] | None,
) -> Metrics:
    """Measure all images; where verdicts are asked for, judge each one at the threshold that all of them chose, and add
    the kinds of error to the metrics."""
    metrics = evaluator.run(images, load, on_image)
    if on_verdict is None:
        return metrics
    fixed, verdicts = metrics.fixed_threshold, []
    for verdict in evaluator.judge(images, load_again, None if fixed is None else fixed.value):
        verdicts.append(verdict)
        on_verdict(verdict)
    return replace(metrics, errors=error_shares(verdicts))
