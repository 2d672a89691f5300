"""Everything that decides a training run, in one record that is written beside its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import yaml
from timm.optim import list_optimizers  # type: ignore[attr-defined]

from iir_fast.data import PROCEDURAL, ProceduralRecipe
from iir_fast.head import ThresholdKind
from iir_fast.loss import Regulation
from iir_fast.methods import METHODS, MethodName
from iir_fast.training.options import from_options, read_yaml

ScheduleName = Literal["one_cycle", "step", "cosine"]
AT_LEAST_ONE = (
    "image_size",
    "epochs",
    "max_steps",
    "classes_per_batch",
    "images_per_class",
    "decay_epochs",
    "accumulate",
    "checkpoint_every",
    "checkpoints",
    "log_every",
)
ABOVE_ZERO = ("learning_rate", "head_rate", "decay_factor", "temperature", "clip")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Defaults are those of the demo's data and network."""

    data: str = PROCEDURAL
    """"procedural" for the embedded data set, a folder with train.csv (and test.csv to be evaluated on), or cub:ROOT,
    ilsvrc:ROOT, openimages:ROOT, pet:ROOT, images:ROOT, shards:ROOT."""
    method: MethodName = "iir"
    """Training method."""
    backbone: str = "small_cnn"
    """"small_cnn" or the name of a timm model."""
    weights: str = "random"
    """Backbone weights: "random", "timm" (downloads), "package" (tf_efficientnet_lite0 to lite2) or a file."""
    output_stride: int | None = None
    """Stride of the feature map in pixels; the architecture's own by default."""
    out_index: int = -1
    """Which of the backbone's feature maps is read; the deepest by default."""
    image_size: int = 64
    """Side of the square input in pixels."""
    hidden: int | None = 32
    """Channels of each classifier's own 3x3 convolution; None: classifiers read the shared map."""
    freeze_backbone: bool = False
    """Train the head alone, on features cached on disk unless the method changes images or backbone."""
    feature_cache: Path | None = None
    """Folder of cached features; by default iir_fast in the user's cache folder."""
    flip: bool = False
    """Mirror every second training image; not with cached features."""
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
    inter_weight: float = 5.0
    """Weight of the inter-sample criterion."""
    regulation: Regulation = "dual"
    """Intra-sample regulation."""
    temperature: float = 0.1
    """Width of the soft masks, in units of the normalized CAM."""
    threshold: ThresholdKind = "learned"
    """IIR: where masks are cut: between each map's own mean and 0.5 as learned, at the mean, or at 0.5."""
    hard: bool = False
    """Hard masks forward, soft gradient."""
    has_grid: int = 44
    """HaS: side of a patch in pixels of a 224-pixel image."""
    has_rate: float = 0.5
    """HaS: probability that a patch is hidden."""
    acol_threshold: float = 0.6
    """ACoL: value of A's normalized CAM at which features are erased for B."""
    spg_high: tuple[float, float, float] = (0.7, 0.5, 0.7)
    """SPG: thresholds of foreground seeds for B2, B1 and C."""
    spg_low: tuple[float, float, float] = (0.05, 0.05, 0.1)
    """SPG: thresholds of background seeds for B2, B1 and C."""
    adl_rate: float = 0.75
    """ADL: probability of the drop mask rather than the importance map."""
    adl_threshold: float = 0.8
    """ADL: share of the attention's maximum at which pixels are dropped."""
    cutmix_beta: float = 1.0
    """CutMix: both parameters of the Beta distribution of the share that stays."""
    cutmix_rate: float = 1.0
    """CutMix: probability that a batch is mixed."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16: under autocast, the latter with a gradient scaler."""
    accumulate: int = 1
    """Batches per update of the weights; images are compared within a batch."""
    clip: float | None = None
    """Largest L2 norm of the gradients; larger ones are scaled down."""
    average_decay: float | None = None
    """Keep a moving average of the weights with this decay, e.g. 0.999, and localize with it."""
    sync_batch_norm: bool = False
    """Batch norm over the batches of all processes."""
    channels_last: bool = False
    """Keep images, features and weights with channels innermost."""
    compile: bool = False
    """Run the backbone under torch.compile."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What to do when the loss is NaN or infinite: stop, or leave the step out. Its images are saved either way."""
    detect_anomaly: bool = False
    """Find the operation that made a NaN, slowly."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; one is written after every epoch anyway."""
    checkpoints: int = 2
    """How many of the last checkpoints are kept."""
    log_every: int = 10
    """Steps between two log entries."""
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
    hue_noise: float = ProceduralRecipe.hue_noise
    """Spread of the embedded bodies' hues about their class's; classes are 0.1 apart."""
    head_contrast: float = ProceduralRecipe.head_contrast
    """Contrast of the embedded heads' stripes, in [0,1]."""
    clutter: float = ProceduralRecipe.clutter
    """Clutter of the embedded images' backgrounds."""

    def __post_init__(self) -> None:
        for name in AT_LEAST_ONE:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; accepted is 1 or more.")
        for name in ABOVE_ZERO:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} is {value}; accepted is a number above 0.")
        self._check_method()
        self._check_optimization()
        self._check_data()

    def _check_method(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; accepted are {', '.join(METHODS)}.")
        if self.method == "spg" and self.freeze_backbone and self.hidden is None:
            raise ValueError(
                "method spg with a frozen backbone needs hidden: without, nothing that it guides is trained."
            )
        if self.compile and self.method == "adl":
            raise ValueError("compile is set for method adl, which hooks the backbone at every step; leave it out.")

    def _check_optimization(self) -> None:
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
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(f"average_decay is {self.average_decay}; accepted is a number between 0 and 1.")

    def _check_data(self) -> None:
        if self.caches_features and (self.flip or self.crop):
            name, done = ("flip", "mirrored") if self.flip else ("crop", "cropped")
            raise ValueError(f"{name} is set together with freeze_backbone; cached features cannot be {done}.")
        if self.data != PROCEDURAL and (self.train_images or self.test_images):
            raise ValueError('train_images and test_images are for data = "procedural" only.')
        if self.recipe != ProceduralRecipe() and self.data != PROCEDURAL:
            raise ValueError('hue_noise, head_contrast and clutter are for data = "procedural".')

    @property
    def caches_features(self) -> bool:
        """Whether training reads cached features in place of images."""
        return self.freeze_backbone and not METHODS[self.method].changes_inputs

    @property
    def recipe(self) -> ProceduralRecipe:
        """How hard the embedded data are."""
        return ProceduralRecipe(self.hue_noise, self.head_contrast, self.clutter)

    def to_yaml(self) -> str:
        """All options, in the order of their declaration."""
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)

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
