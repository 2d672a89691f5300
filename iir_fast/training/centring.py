"""Which CAMs localize better, those of training or those without the classes' mean: judged by labels alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iir_fast.data import LocalizationDataset, image_transform
from iir_fast.evaluation import largest_box, own_threshold, resize_scoremap
from iir_fast.localization import scale_box
from iir_fast.models import IIRNetwork

IMAGES, BATCH = 200, 32
"""Images at most, those at even distances in the data, and how many the network reads at once."""
SURE, HOPELESS, FIRST = 5.0, 2.0, 64
"""Standard errors by which centred CAMs have to be better; with fewer than the second after so many images, no more are
looked at: each one costs five passes of the backbone."""
CELLS = 4
"""An image is blurred to as many cells each way."""


@torch.no_grad()
def prefers_centred(network: IIRNetwork, dataset: LocalizationDataset, image_size: int) -> bool:
    """Tell whether boxes out of centred CAMs hold more of what the network knows its training images by.

    Args:
        network: in eval mode; its `centred` stays as it is.
        dataset: of the classes it was trained on; only images and labels are read.
        image_size: side of its input, in pixels.

    Returns:
        True if `label_scores` of centred CAMs are larger by five standard errors of the mean difference, which one
        image alone has none of.
    """
    transform = image_transform(image_size, network.backbone.mean, network.backbone.std)
    spread = -(-len(dataset) // IMAGES)
    # In the order in which any number of them, from the first on, lies spread over the classes of a sorted list.
    order = torch.randperm(-(-len(dataset) // spread), generator=torch.Generator().manual_seed(0)) * spread
    device = network.head.weight.device
    before, differences, errors = network.centred, torch.empty(0, dtype=torch.float64), 0.0
    try:
        for part in order.split(BATCH):
            images = torch.stack([transform(dataset.image(i)) for i in part.tolist()]).to(device)
            labels = torch.tensor([dataset.labels[i] for i in part.tolist()], device=device)
            features, scores = network.backbone(images), list[Tensor]()
            for centred in (True, False):
                network.centred = centred
                maps = network.localize(features, labels, ("cam", "evidence"), from_features=True).maps
                # The same of both kinds of CAMs, whatever "both" is of a centred network.
                scores.append(label_scores(network, images, labels, (maps["cam"] * maps["evidence"]).sqrt()))
            differences = torch.cat((differences, scores[0] - scores[1]))
            count = len(differences)
            errors = float(differences.mean() / differences.std() * count**0.5) if count > 1 else 0.0
            if count >= FIRST and not errors > HOPELESS:
                break
    finally:
        network.centred = before
    return errors > SURE


@torch.no_grad()
def label_scores(network: IIRNetwork, images: Tensor, labels: Tensor, maps: Tensor) -> Tensor:
    """Score boxes out of localization maps by the images' labels: p(label | inside) - p(label | outside).

    Inside the box is sharp and the rest blurred, or the other way round. A box that misses the object, or has a part of
    it, leaves what tells the label outside. The score is ours; `docs/ablation.md` says where it was tried.

    Args:
        network: in eval mode.
        images: normalized images [B,3,H,W].
        labels: int64 [B].
        maps: [B,h,w] in [0,1]; a box is that of the map's own threshold.

    Returns:
        float64 [B] in [-1,1], on the CPU.
    """
    height, width = images.shape[2:]
    inside = torch.zeros(len(images), 1, height, width, dtype=torch.bool)
    for each, scoremap in zip(inside, resize_scoremap(maps.float()), strict=True):
        x0, y0, x1, y1 = scale_box(largest_box(scoremap, own_threshold(scoremap)), (width, height))
        each[:, y0:y1, x0:x1] = True
    inside = inside.to(images.device)
    blurred = F.interpolate(F.adaptive_avg_pool2d(images, CELLS), (height, width), mode="bilinear")

    def probability(pictures: Tensor) -> Tensor:
        _, out = network(pictures, labels)
        found = network.head.class_logits(out).double().softmax(dim=1)
        return found.gather(1, labels[:, None]).squeeze(1).cpu()

    return probability(images.where(inside, blurred)) - probability(blurred.where(inside, images))
