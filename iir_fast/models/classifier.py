"""timm's classifiers with the classes that they know and the images that they take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from iir_fast.models.localizer import Localizer
from iir_fast.models.pretrained import create_timm_model, has_package, load_weights, read_weights


@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier takes and tells.

    Attributes:
        backbone: its name.
        classes: class names in the order of the logits.
        image_size: side of the square input, in pixels.
        mean: per-channel mean that images in [0, 1] are normalized with.
        std: per-channel standard deviation, likewise.
    """

    backbone: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def create_classifier(name: str, weights: str | None = None) -> tuple[Localizer, ClassifierSpec]:
    """Create a timm classifier that localizes its own classes, by the maps that `forward_features` makes.

    Args:
        name: a timm model with a classifier, with or without a pretrained tag.
        weights: "timm", "package", "random" or a file, as `create_backbone` takes them; None: "package" where that is
            installed, else "timm".

    Returns:
        The localizer in eval mode, and its specification, with ImageNet's class names if the number of classes is that
        of one of its sets, else with numbers, and the size and normalization of timm's configuration.

    Raises:
        ValueError: timm has no such model, it has no classifier, or the weights do not fit.
        FileNotFoundError: the weights file does not exist.
        ModuleNotFoundError: the package is not installed.
        RuntimeError: timm could not get its weights.
    """
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=4)
        raise ValueError(f"Unknown classifier {name!r}." + (f" Did you mean {', '.join(close)}?" if close else ""))
    if weights is None:
        weights = "package" if has_package(name) else "timm"
    tensors = None if weights in ("random", "timm") else read_weights(weights, name)
    model = create_timm_model(name, weights == "timm")
    if tensors is not None:
        load_weights(model, tensors, weights)
    config = model.pretrained_cfg
    if not model.num_classes:
        raise ValueError(f"classifier {name!r} has no classes, it only makes features; train one on it.")
    spec = ClassifierSpec(
        name, _class_names(model), config["input_size"][-1], tuple(config["mean"]), tuple(config["std"])
    )
    return Localizer(model.eval()), spec


def _class_names(model: Any) -> tuple[str, ...]:
    subset = infer_imagenet_subset(model)
    if subset is None:
        return tuple(map(str, range(model.num_classes)))
    info: Any = ImageNetInfo(subset)
    names = [description.split(",")[0] for description in info.label_descriptions()]
    # A crane is a bird and a machine: WordNet's number tells them apart.
    times = Counter(names)
    synsets = info.label_names()
    return tuple(
        name if times[name] == 1 else f"{name} ({synset})" for name, synset in zip(names, synsets, strict=True)
    )
