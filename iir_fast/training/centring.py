"""Which CAMs localize better, those of training or those without the classes' mean: judged by labels alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iir_fast.data import LocalizationDataset, image_transform
from iir_fast.evaluation import PROTOCOL_SIZE, own_threshold, resize_scoremap
from iir_fast.evaluation.boxes import largest_box
from iir_fast.models import DEFAULT_MAP, IIRNetwork

IMAGES, BATCH = 200, 32
"""Images at most, those at even distances in the data, and how many the network reads at once."""
SURE = 5.0
"""Standard errors by which centred CAMs have to be the better ones."""
CELLS = 4
"""An image is blurred to as many cells each way."""


def prefers_centred(network: IIRNetwork, dataset: LocalizationDataset, image_size: int) -> bool:
    """Tell whether boxes out of centred CAMs hold more of what the network knows its training images by.

    Args:
        network: in eval mode; its `centred` is not looked at.
        dataset: of the classes it was trained on; only images and labels are read.
        image_size: side of its input, in pixels.

    Returns:
        True if `label_scores` of centred CAMs are larger by five standard errors of the mean difference, which one
        image alone has none of.
    """
    transform = image_transform(image_size, network.backbone.mean, network.backbone.std)
    chosen = range(0, len(dataset), -(-len(dataset) // IMAGES))
    if len(chosen) == 1:
        return False
    device = network.head.weight.device
    before, differences = network.centred, list[Tensor]()
    try:
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            images = torch.stack([transform(dataset.image(i)) for i in part]).to(device)
            scores = [_scores_with(network, centred, images, dataset.labels, part) for centred in (True, False)]
            differences.append(scores[0] - scores[1])
    finally:
        network.centred = before
    found = torch.cat(differences)
    return bool(found.mean() > SURE * found.std() / len(found) ** 0.5)


def _scores_with(
    network: IIRNetwork, centred: bool, images: Tensor, labels: Sequence[int], part: Sequence[int]
) -> Tensor:
    network.centred = centred
    return label_scores(network, images, torch.tensor([labels[i] for i in part], device=images.device))


@torch.no_grad()
def label_scores(network: IIRNetwork, images: Tensor, labels: Tensor) -> Tensor:
    """Score the boxes of an image's default map by its label: p(label | inside) - p(label | outside).

    Inside the box is sharp and the rest blurred, or the other way round. A box that misses the object, or has a part of
    it, leaves what tells the label outside. The score is ours; `docs/ablation.md` says where it was tried.

    Args:
        network: in eval mode.
        images: normalized images [B,3,H,W].
        labels: int64 [B].

    Returns:
        float64 [B] in [-1,1], on the CPU.
    """
    maps = network.localize(images, labels).maps[DEFAULT_MAP].float().cpu()
    height, width = images.shape[2:]
    inside = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    for each, scoremap in zip(inside, map(resize_scoremap, maps), strict=True):
        x0, y0, x1, y1 = largest_box(scoremap, own_threshold(scoremap))
        x = slice(x0 * width // PROTOCOL_SIZE, -(-(x1 + 1) * width // PROTOCOL_SIZE))
        y = slice(y0 * height // PROTOCOL_SIZE, -(-(y1 + 1) * height // PROTOCOL_SIZE))
        each[:, y, x] = True
    inside = inside.to(images.device)
    blurred = F.interpolate(F.adaptive_avg_pool2d(images, CELLS), (height, width), mode="bilinear")

    def probability(pictures: Tensor) -> Tensor:
        _, out = network(pictures, labels)
        found = network.head.class_logits(out).double().softmax(dim=1)
        return found.gather(1, labels[:, None]).squeeze(1).cpu()

    return probability(images.where(inside, blurred)) - probability(blurred.where(inside, images))
