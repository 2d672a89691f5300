"""What the report holds of one image, made a batch at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iir_fast.app.runs import EVALUATION_BATCH, LoadedRun
from iir_fast.app.threads import in_order
from iir_fast.data import LocalizationDataset
from iir_fast.evaluation import PROTOCOL_SIZE, resize_scoremap, scale_boxes, score_contours
from iir_fast.models import MapName

JPEG_QUALITY = 80


@dataclass(frozen=True)
class ReportImage:
    """One image as the report shows it.

    Attributes:
        id: its name in the data set.
        label: the true class, which the maps belong to.
        predicted: the class of the largest logit.
        probability: of that class, softmax of the classifiers' mean logits.
        rank: of the true class among the classes, 0 for the best.
        size: width and height of the image as it was read.
        true_boxes: float64 [n, 4], x0, y0, x1, y1 in pixels of the image.
        iou: float64 [maps, T], per map and threshold the best IoU of the largest contour's box with any true box; None
            where the image has no boxes.
        cams: float32 [2, h, w] in [0, 1], the CAM of each classifier.
        maps: float32 [maps, h, w] in [0, 1], bit for bit what the evaluator reads.
        thumbnail: JPEG, no side above 224 pixels.
    """

    id: str
    label: int
    predicted: int
    probability: float
    rank: int
    size: tuple[int, int]
    true_boxes: NDArray[np.float64]
    iou: NDArray[np.float64] | None
    cams: NDArray[np.float32]
    maps: NDArray[np.float32]
    thumbnail: bytes


def report_images(
    run: LoadedRun,
    batches: Iterable[tuple[Tensor, Tensor]],
    indices: Sequence[int],
    maps: tuple[MapName, ...],
    taus: NDArray[np.float64],
    on_image: Callable[[int], None] = lambda images: None,
) -> Iterator[ReportImage]:
    """Localize the true class in every image; no more than two batches are held at a time.

    `batches` are those that `image_batches` makes of the images at `indices`. Each map is boxed at all of `taus`,
    float64 [T], and `on_image` is called with 1 for each image.
    """
    device = run.model.head.weight.device

    def localized() -> Iterator[_Localized]:
        remaining = iter(indices)
        for inputs, labels in batches:
            found = run.model.localize(inputs.to(device), labels.to(device), maps, run.config.model.freeze_backbone)
            stacked = torch.stack([found.maps[map] for map in maps], dim=1).float().cpu()
            yield from zip(
                stacked, found.cams.float().cpu().numpy(), found.logits.float().cpu(), remaining, strict=False
            )

    with closing(in_order(partial(_describe, run.dataset, taus), localized(), EVALUATION_BATCH)) as images:
        for image in images:
            yield image
            on_image(1)


_Localized: TypeAlias = tuple[Tensor, NDArray[np.float32], Tensor, int]
"""Maps, CAMs and logits of an image, and its position in the data set."""


def _describe(dataset: LocalizationDataset, taus: NDArray[np.float64], localized: _Localized) -> ReportImage:
    maps, cams, logits, i = localized
    truth, label, image = dataset.ground_truth(i), dataset.labels[i], dataset.image(i)
    iou = None
    if len(truth.boxes):
        scaled = scale_boxes(truth.boxes, truth.size)
        iou = np.stack([score_contours(scoremap, taus, scaled)[0] for scoremap in resize_scoremap(maps)])
    predicted = int(logits.topk(1).indices)
    return ReportImage(
        id=dataset.ids[i],
        label=label,
        predicted=predicted,
        probability=float(logits.softmax(0)[predicted]),
        rank=int((logits > logits[label]).sum()),
        size=image.size,
        true_boxes=truth.boxes,
        iou=iou,
        cams=cams,
        maps=maps.numpy(),
        thumbnail=_thumbnail(image),
    )


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((PROTOCOL_SIZE, PROTOCOL_SIZE))
    file = io.BytesIO()
    # Without chroma subsampling: it smears the colours of small images.
    small.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()
