"""From a localizer and a data set to metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iir_fast.data import LocalizationDataset
from iir_fast.evaluation.evaluator import Evaluator
from iir_fast.evaluation.measurement import ScoredImage
from iir_fast.evaluation.metrics import Metrics
from iir_fast.evaluation.scoremaps import resize_scoremap
from iir_fast.models import IIRLocalizer, MapKind

RANKED = 5
RESIZED_AT_ONCE = 32


@dataclass(frozen=True)
class Predictions:
    """What a localizer says of every image of a data set, at the resolution of its feature map.

    Attributes:
        maps: for each kind float32 [N,h,w] in [0,1], of each image's true class.
        ranked_classes: int64 [N,k], the best classes first, k at most 5.
    """

    maps: dict[MapKind, Tensor]
    ranked_classes: NDArray[np.int64]


def predict(
    model: IIRLocalizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    kinds: tuple[MapKind, ...],
    from_features: bool = False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Predictions:
    """Localize the true class in every image.

    Args:
        model: in eval mode.
        batches: images [B,3,H,W], or shared maps with `from_features`, and labels int64 [B].
        kinds: which localization maps to make.
        from_features: the batches hold shared maps.
        on_batch: called with the number of images after each batch.
    """
    device = model.head.weight.device
    maps: dict[MapKind, list[Tensor]] = {kind: [] for kind in kinds}
    ranked: list[Tensor] = []
    for inputs, labels in batches:
        found = model.localize(inputs.to(device), labels.to(device), kinds, from_features)
        for kind in kinds:
            maps[kind].append(found.maps[kind].float().cpu())
        ranked.append(found.logits.topk(min(RANKED, found.logits.shape[1]), dim=1).indices.cpu())
        on_batch(len(labels))
    return Predictions({kind: torch.cat(parts) for kind, parts in maps.items()}, torch.cat(ranked).numpy())


def evaluate_maps(
    predictions: Predictions,
    kind: MapKind,
    dataset: LocalizationDataset,
    evaluator: Evaluator,
    on_image: Callable[[int], None] = lambda images: None,
) -> Metrics:
    """The metrics of one kind of map.

    Args:
        predictions: made from the images of `dataset` in their order.
        kind: which of their maps.
        dataset: gives labels and ground truth.
        evaluator: split name, thresholds and workers.
        on_image: called with 1 for each image handed to the evaluator.
    """

    def items() -> Iterator[ScoredImage]:
        for start in range(0, len(dataset), RESIZED_AT_ONCE):
            resized = resize_scoremap(predictions.maps[kind][start : start + RESIZED_AT_ONCE])
            for i, scoremap in enumerate(resized, start):
                yield ScoredImage(
                    dataset.ids[i],
                    scoremap,
                    dataset.labels[i],
                    predictions.ranked_classes[i],
                    dataset.ground_truth(i),
                )
                on_image(1)

    return evaluator.run(items())
