"""What localizes without training: the rows that every method has to beat."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast.app.progress import log
from iir_fast.app.runs import say_skipped
from iir_fast.data import LocalizationDataset, Transform, image_transform
from iir_fast.evaluation import PROTOCOL_SIZE, Evaluator, Predictions, Refinement, evaluate_maps, refined_name
from iir_fast.models import Localizer, create_classifier
from iir_fast.training import RunFolder, TrainConfig, open_data, pick_device

Baseline = Literal["center", "classifier"]
"""A map that no training of ours has made.

"center" is the same in every image, a Gaussian around its middle, as in Choe et al., "Evaluating Weakly Supervised
Object Localization Methods Right", CVPR 2020. "classifier" is the CAM of the class that the backbone's own pretrained
classifier takes for the most probable one, whatever the image's label is.
"""
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
WIDTH = 0.25
"""Standard deviation of the Gaussian, in sides of the image; of no account where the best threshold is taken."""
BATCH = 32


def evaluate_baseline(
    folder: RunFolder, config: TrainConfig, baseline: Baseline, split: str, refinements: tuple[Refinement, ...]
) -> None:
    """Evaluate a baseline on the data of a run, and write its metrics as those of a run's map "cam".

    Args:
        folder: for the result; a new one, or that of an interrupted call.
        config: names the data, and for "classifier" the backbone and its weights; the rest of it is not read.
        baseline: which one.
        split: of the data.
        refinements: how maps are refined by their images, once in each of these ways.

    Raises:
        ValueError: the weights are random, the backbone has no classifier, or as `ListedDataset.check`.
    """
    if baseline == "center":
        dataset = _open(config, split, pil_to_tensor)  # images are not looked at, whatever would be made of them
        maps = gaussian().expand(len(dataset), -1, -1)
    else:
        if config.model.weights == "random":
            raise ValueError("weights is 'random'; a classifier as it is needs those of its training, such as 'timm'.")
        localizer, spec = create_classifier(config.model.backbone, config.model.weights)
        dataset = _open(config, split, image_transform(spec.image_size, spec.mean, spec.std))
        maps = _maps_of(localizer.to(pick_device(config.device)), dataset)
    folder.open(config, "resume")
    found = Predictions({"cam": maps}, None)
    content = {
        refined_name(split, refinement): {
            "cam": evaluate_maps(found, "cam", dataset, Evaluator(split), refinement=refinement).to_dict()
        }
        for refinement in refinements
    }
    folder.write_metrics(content)


def gaussian() -> Tensor:
    """Make the map of "center": float32 [224, 224], 1 in the middle."""
    offsets = (torch.arange(PROTOCOL_SIZE) + 0.5) / PROTOCOL_SIZE - 0.5
    line = torch.exp(-(offsets**2) / (2 * WIDTH**2))
    return line[:, None] * line


def _open(config: TrainConfig, split: str, transform: Transform) -> LocalizationDataset:
    dataset = open_data(config, split, transform)
    say_skipped(dataset)
    for remark in dataset.check():
        log(remark)
    return dataset


def _maps_of(localizer: Localizer, dataset: LocalizationDataset) -> Tensor:
    """Make the map of the most probable class of every image: float32 [N, h, w], on the CPU."""
    device = next(localizer.parameters()).device
    parts = []
    for part in torch.arange(len(dataset)).split(BATCH):
        images = torch.stack([dataset[i][0] for i in part.tolist()])
        parts.append(localizer(images.to(device)).maps["cam"].float().cpu())
    return torch.cat(parts)
