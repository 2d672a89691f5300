"""The training loop: one for all methods, on images or on cached features."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from iir_fast.data import LocalizationDataset, SubgroupSampler, image_transform, open_split
from iir_fast.loss import IIRLoss
from iir_fast.methods import Method, create_method
from iir_fast.models import IIRLocalizer, LocalizerSpec, read_checkpoint, save_checkpoint
from iir_fast.progress import console, image_progress
from iir_fast.training.config import TrainConfig
from iir_fast.training.features import CachedFeatures, cached_features
from iir_fast.training.run_folder import RunFolder, WhenThere

FEATURE_BATCH = 32
NEUTRAL = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Normalization until the backbone, which depends on the data's classes, says its own."""
RAMP = 0.25
"""Share of training over which regulation is turned on."""


class Interrupted(Exception):
    """Training was asked to stop (SIGINT) and has left a checkpoint to resume from."""


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind.

    Attributes:
        model: the trained localizer, in eval mode.
        spec: what builds it again.
        skipped: paths of training images that could not be read and were left out.
    """

    model: IIRLocalizer
    spec: LocalizerSpec
    skipped: tuple[str, ...]


def pick_device(name: str) -> torch.device:
    """ "auto": a CUDA (or ROCm) device when there is one, else the CPU.

    Raises:
        RuntimeError: "cuda" was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError('device is "cuda", but torch finds no such device here; accepted are "auto" and "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train(config: TrainConfig, root: Path, when_there: WhenThere = "refuse") -> TrainResult:
    """Train a localizer; the checkpoint in the run's folder is renewed after every epoch.

    Same configuration, machine and thread count: same weights, bit for bit, on the CPU.

    Args:
        config: what to train, on what, how.
        root: folder of the run: configuration, checkpoint, TensorBoard scalars. Made once the data are found sound.
        when_there: what to do with a folder that exists: refuse, resume from its checkpoint, or overwrite.

    Raises:
        Interrupted: SIGINT came; the step at hand was finished and a checkpoint written.
        FileExistsError: `root` exists and may not be used.
        ValueError, FileNotFoundError, BrokenImageError: configuration or data are at fault; the message says which.
    """
    folder = RunFolder(root)
    folder.check(config, when_there)
    torch.manual_seed(config.seed)
    device = pick_device(config.device)
    dataset = open_split(
        config.data,
        "train",
        image_transform(config.image_size, *NEUTRAL),
        skip_broken=config.skip_broken,
        images=config.train_images,
    )
    spec = LocalizerSpec(
        config.backbone,
        dataset.classes,
        config.image_size,
        config.output_stride,
        config.out_index,
        config.hidden,
        config.threshold,
    )
    model = spec.build(config.weights).to(device)
    dataset.transform = image_transform(config.image_size, model.backbone.mean, model.backbone.std, config.flip)
    skipped = dataset.skipped
    if skipped:
        console.print(f"skipped {len(skipped)} of {len(skipped) + len(dataset)} training images that cannot be read.")
    folder.open(config, when_there)

    with image_progress() as progress:
        source: LocalizationDataset | CachedFeatures = dataset
        if config.freeze_backbone:
            model.backbone.requires_grad_(False).eval()
            source = frozen_features(model, spec, dataset, config, progress)
        run = _Run(config, model, spec, source, folder)
        if when_there == "resume" and folder.checkpoint.is_file():
            run.restore()
        with _interrupt_flag() as interrupted, SummaryWriter(str(folder.root)) as writer:
            run.train(progress, writer, interrupted)
    return TrainResult(model.eval(), spec, skipped)


def frozen_features(
    model: IIRLocalizer, spec: LocalizerSpec, dataset: LocalizationDataset, config: TrainConfig, progress: Progress
) -> CachedFeatures:
    """The shared maps of a data set under a frozen backbone, with a bar where they must be computed."""
    task = progress.add_task(f"features of {dataset.split}", total=len(dataset), note="", visible=False)
    loader: DataLoader[Any] = DataLoader(dataset, FEATURE_BATCH, num_workers=config.workers)

    def advance(images: int) -> None:
        progress.update(task, advance=images, visible=True)

    return cached_features(model.backbone, dataset, loader, spec.image_size, config.feature_cache, advance)


class _Run:
    """State of one training run: what a checkpoint must hold for the next process to go on."""

    def __init__(
        self,
        config: TrainConfig,
        model: IIRLocalizer,
        spec: LocalizerSpec,
        source: LocalizationDataset | CachedFeatures,
        folder: RunFolder,
    ) -> None:
        self.config, self.model, self.spec, self.source, self.folder = config, model, spec, source, folder
        self.sampler = SubgroupSampler(
            [int(label) for label in source.labels], config.classes_per_batch, config.images_per_class, config.seed
        )
        self.total_steps = config.epochs * len(self.sampler)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=self.total_steps + 1, pct_start=0.2
        )
        self.method: Method = create_method(
            config.method,
            IIRLoss(config.intra_weight, config.inter_weight, config.regulation, config.temperature, config.hard),
        )
        self.step = 0

    def save(self) -> None:
        training = {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(self.folder.checkpoint, self.spec, self.model, training)

    def restore(self) -> None:
        _, state, training = read_checkpoint(self.folder.checkpoint)
        if training is None:
            raise ValueError(f"checkpoint {self.folder.checkpoint} holds no training state to resume from.")
        self.model.load_state_dict(state)
        self.optimizer.load_state_dict(training["optimizer"])
        self.schedule.load_state_dict(training["schedule"])
        torch.set_rng_state(training["rng"])
        self.step = training["step"]
        console.print(f"resumed at step {self.step} of {self.total_steps}.")

    def train(self, progress: Progress, writer: SummaryWriter, interrupted: list[bool]) -> None:
        batch = self.config.classes_per_batch * self.config.images_per_class
        task = progress.add_task(
            f"train {self.config.method}", total=self.total_steps * batch, completed=self.step * batch, note=""
        )
        self.model.train()
        if self.config.freeze_backbone:
            self.model.backbone.eval()
        while self.step < self.total_steps:
            for inputs, labels in self._rest_of_epoch():
                terms = self._step(inputs, labels)
                note = " ".join(f"{name[:5]} {value:.3g}" for name, value in terms.items())
                progress.update(task, advance=len(labels), note=note)
                for name, value in terms.items():
                    writer.add_scalar(f"loss/{name}", value, self.step)
                writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], self.step)
                if interrupted[0]:
                    self.save()
                    raise Interrupted(f"stopped at step {self.step} of {self.total_steps}; resume to go on from there.")
            self.save()

    def _rest_of_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, done = divmod(self.step, len(self.sampler))
        self.sampler.set_epoch(epoch)
        cached = isinstance(self.source, CachedFeatures)
        loader: DataLoader[Any] = DataLoader(
            self.source,
            batch_sampler=list(self.sampler)[done:],
            num_workers=0 if cached else self.config.workers,
            collate_fn=CachedFeatures.collate if cached else None,
        )
        yield from loader

    def _step(self, inputs: Tensor, labels: Tensor) -> dict[str, float]:
        device = self.model.head.weight.device
        inputs, labels = inputs.to(device), labels.to(device)
        if self.config.freeze_backbone:
            features, out = inputs, self.model.head(inputs, labels)
        else:
            features, out = self.model(inputs, labels)
        ramp = min(1.0, self.step / (RAMP * self.total_steps))
        result = self.method(features, out, labels, ramp)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.model.prototypes.update(result.foreground, labels)
        self.step += 1
        accuracy = (out.logits_a + out.logits_b).argmax(dim=1).eq(labels).float().mean()
        terms = {"total": result.loss.detach(), **result.terms, "accuracy": accuracy}
        return {name: float(value) for name, value in terms.items()}


@contextmanager
def _interrupt_flag() -> Iterator[list[bool]]:
    """A flag that the first SIGINT sets; the second one interrupts at once, as it always does."""
    flag = [False]

    def on_interrupt(signum: int, frame: object) -> None:
        flag[0] = True
        signal.signal(signal.SIGINT, previous)

    try:
        previous = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
