"""The parts of a training's configuration. No two parts have an option of one name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from timm.optim import list_optimizers  # type: ignore[attr-defined]

ScheduleName = Literal["one_cycle", "step", "cosine"]
TrackerName = Literal["none", "tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True)
class Images:
    """The images, and how they are read."""

    image_size: int = 64
    """Side of the square input in pixels."""
    flip: bool = False
    """Mirror every second training image; not with cached features."""
    crop: bool = False
    """Resize training images to 8/7 of image_size (256 of 224) and cut a square out at random; as flip."""
    train_images: int | None = None
    """Size of the embedded training set, if not its 4,000 images."""
    test_images: int | None = None
    """Size of the embedded test set, if not its 800 images."""
    workers: int = 0
    """Processes that load images; 0: the training process."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    raw_orientation: bool = False
    """Take one's own images as they are stored, for boxes in the pixels of these; by default they are turned upright as
    their EXIF orientation says. Benchmarks are always taken as they are stored."""
    feature_cache: Path | None = None
    """Folder of cached features; by default iir_fast in the user's cache folder."""

    def __post_init__(self) -> None:
        _check_at_least_one(self, "image_size")


@dataclass(frozen=True)
class Model:
    """The network."""

    backbone: str = "small_cnn"
    """"small_cnn" or the name of a timm model."""
    weights: str = "random"
    """Backbone weights: "random", "timm" (downloads), "package" (tf_efficientnet_lite0 to lite2) or a file: .pt, .pth,
    .pth.tar, .ckpt, .bin or .safetensors, of any training program."""
    output_stride: int | None = None
    """Stride of the feature map in pixels; the architecture's own by default."""
    out_index: int | None = None
    """Which of the backbone's feature maps is read; by default the deepest of stride 16 or less, or the deepest of all
    where output_stride is given."""
    hidden: int | None = 32
    """Channels of each classifier's own 3x3 convolution; None: classifiers read the shared map."""
    freeze_backbone: bool = False
    """Train the head alone, on features cached on disk unless the method changes images or backbone."""


@dataclass(frozen=True)
class Optimization:
    """Batches, the optimizer and its schedule."""

    epochs: int = 5
    """Passes over the training images."""
    max_steps: int | None = None
    """Stop after that many steps, for a trial; the schedule stays that of all epochs."""
    classes_per_batch: int = 8
    """Classes P in a batch."""
    images_per_class: int = 8
    """Images Q of each class in a batch."""
    accumulate: int = 1
    """Batches per update of the weights; images are compared within a batch."""
    optimizer: str = "adamw"
    """Any optimizer of timm: "adamw", "sgd" (with Nesterov momentum), "lars", "lamb"."""
    learning_rate: float = 2e-3
    """Peak of the schedule."""
    head_lr_mult: float = 1.0
    """Factor on the learning rate of all that is not the backbone."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
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
    clip: float | None = None
    """Largest L2 norm of the gradients; larger ones are scaled down."""
    ema_decay: float | None = None
    """Keep a moving average of the weights with this decay, e.g. 0.999, and localize with it."""

    def __post_init__(self) -> None:
        _check_at_least_one(
            self, "epochs", "max_steps", "classes_per_batch", "images_per_class", "decay_epochs", "accumulate"
        )
        # Beyond these an optimizer's products leave float32.
        for name, largest in (("learning_rate", 1e30), ("head_lr_mult", 1e4), ("decay_factor", 1e4), ("clip", 1e30)):
            if (value := getattr(self, name)) is not None and not 0 < value <= largest:
                raise ValueError(f"{name} is {value}; accepted is a number above 0, {largest:g} at most.")
        if not 0 <= self.weight_decay <= 1e4:
            raise ValueError(f"weight_decay is {self.weight_decay}; accepted is a number from 0 to 10000.")
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
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; accepted is a number between 0 and 1.")


@dataclass(frozen=True)
class Execution:
    """How a step is carried out."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16: under autocast, the latter with a gradient scaler."""
    channels_last: bool = False
    """Keep images, features and weights with channels innermost."""
    compile: bool = False
    """Run the backbone under torch.compile."""
    sync_batch_norm: bool = False
    """Batch norm over the batches of all processes."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What to do when the loss is NaN or infinite: stop, or leave the step out. Its images are saved either way."""
    detect_anomaly: bool = False
    """Find the operation that made a NaN, slowly."""


@dataclass(frozen=True)
class Saving:
    """What is written on the way."""

    checkpoint_every: int | None = None
    """Steps between two checkpoints; one is written after every epoch anyway."""
    checkpoints: int = 2
    """How many of the last checkpoints are kept."""
    log_every: int = 10
    """Steps between two log entries."""
    tracker: TrackerName = "none"
    """Where losses are shown as they come, and with --validate a few overlays after every epoch; each an extra."""

    def __post_init__(self) -> None:
        _check_at_least_one(self, "checkpoint_every", "checkpoints", "log_every")


def _check_at_least_one(part: Images | Optimization | Saving, *names: str) -> None:
    for name in names:
        if (value := getattr(part, name)) is not None and value < 1:
            raise ValueError(f"{name} is {value}; accepted is 1 or more.")
