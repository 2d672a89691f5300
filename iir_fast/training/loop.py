"""Training, from a configuration to a network: one way for all methods, on images or on cached features."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch.utils.data import DataLoader

from iir_fast.app.history import add_to_history
from iir_fast.app.progress import image_progress, log
from iir_fast.data import AugmentedDataset, LocalizationDataset, image_transform
from iir_fast.methods import Learner
from iir_fast.models import IIRNetwork, NetworkSpec
from iir_fast.training.config import TrainConfig
from iir_fast.training.features import CachedFeatures, cached_features
from iir_fast.training.loading import Source, make_sampler, open_data
from iir_fast.training.ranks import Ranks, joined_ranks
from iir_fast.training.run import Run, Validate
from iir_fast.training.run_folder import IfExists, RunFolder
from iir_fast.training.trackers import check_tracker, tracked_by

FEATURE_BATCH = 32
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that end training behind the step at hand, with a checkpoint: a terminal's, that of torchrun, Kubernetes and
other schedulers, the warning that these are told to send before, and that of a terminal that is closed."""
NEUTRAL = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Normalization until the backbone, which depends on the data's classes, says its own."""


@dataclass(frozen=True)
class TrainResult:
    """What training leaves behind.

    Attributes:
        model: the trained network, in eval mode.
        spec: what builds it again.
        skipped: paths of training images that could not be read and were left out.
        by_first_rank: whether this is the only process, or the first of several that trained together.
    """

    model: IIRNetwork
    spec: NetworkSpec
    skipped: tuple[str, ...]
    by_first_rank: bool = True

    def __repr__(self) -> str:
        return (
            f"TrainResult({self.spec.backbone}, {len(self.spec.classes)} classes, {len(self.skipped)} images skipped)"
        )


def pick_device(name: str) -> torch.device:
    """Find the device that a command's `--device` means.

    Args:
        name: "cpu", "cuda" (which ROCm's devices are called too), or "auto": "cuda" when there is one, else "cpu".

    Returns:
        The device, without an index.

    Raises:
        RuntimeError: "cuda" was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError('device is "cuda", but torch finds no such device here; accepted are "auto" and "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train(
    config: TrainConfig,
    root: Path,
    if_exists: IfExists = "refuse",
    validate: Validate | None = None,
    evaluated: Sequence[str] = (),
) -> TrainResult:
    """Train a network; checkpoints in the run's folder are renewed after every epoch at least.

    Same configuration, machine, thread count and number of processes: same weights, bit for bit, on the CPU, however
    often the run was interrupted or killed and resumed. Started by torchrun, each process trains on its share of every
    batch and gets the same result.

    Args:
        config: what to train, on what, how.
        root: folder of the run: configuration, checkpoints, history. Made once the data are found sound.
        if_exists: what to do with a run that is there: refuse, resume from its newest checkpoint, or overwrite. One
            that finished no step is started anew.
        validate: called after every epoch, in the first process; the checkpoint of the largest metric is kept.
        evaluated: splits that will be evaluated: they are opened, and their files looked at, before the first step.

    Returns:
        The trained model with its specification.

    Raises:
        Interrupted: one of `STOPPING` came; the step at hand was finished and a checkpoint written.
        NonFiniteLoss: the loss was NaN or infinite, and `non_finite` is "stop".
        FileExistsError: `root` exists and may not be used.
        OSError: another process trains there.
        ModuleNotFoundError: the tracker is not installed.
        ValueError, FileNotFoundError, BrokenImageError: configuration or data are at fault; the message says which.
        OSError: a checkpoint could not be written; the one before is whole.
    """
    with joined_ranks(config.device) as ranks:
        return _train(config.absolute(), RunFolder(root), if_exists, validate, evaluated, ranks)


def _train(
    config: TrainConfig,
    folder: RunFolder,
    if_exists: IfExists,
    validate: Validate | None,
    evaluated: Sequence[str],
    ranks: Ranks,
) -> TrainResult:
    if ranks.is_first:
        check_tracker(config.saving.tracker)
        folder.check(config, if_exists)
    torch.manual_seed(config.seed)
    device = ranks.device(pick_device(config.device))
    images, network = config.images, config.model
    neutral = image_transform(images.image_size, *NEUTRAL)
    dataset = open_data(config, "train", neutral)
    if ranks.is_first:
        for remark in dataset.check():
            log(remark)
        for split in evaluated:
            open_data(config, split, neutral, dataset.classes).check()  # its evaluation says what is to be known
    sampler = make_sampler(config, dataset.labels, ranks.rank, ranks.size)
    shape = network.output_stride, network.out_index, network.hidden
    spec = config.method.adapt(NetworkSpec(network.backbone, dataset.classes, images.image_size, *shape))
    model = spec.build(network.weights).to(device)
    if config.execution.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if config.execution.sync_batch_norm:
        ranks.synchronize_batch_norm(model, device)
    with torch.no_grad():  # a size that the backbone cannot read is said before anything is written
        model.backbone.eval()(torch.zeros(1, 3, images.image_size, images.image_size, device=device))
    learner = Learner(config.method, model, config.caches_features).to(device)
    dataset.transform = image_transform(
        images.image_size, model.backbone.mean, model.backbone.std, images.flip, images.crop
    )
    skipped = dataset.skipped
    if ranks.is_first and skipped:
        log(f"skipped {len(skipped)} of {len(skipped) + len(dataset)} training images: unreadable.")
    lock = folder.locked() if ranks.is_first else nullcontext()
    with lock, image_progress(shown=ranks.is_first) as progress:
        if ranks.is_first:
            folder.open(config, if_exists)
        ranks.wait()
        source: Source = AugmentedDataset(dataset, config.seed) if images.flip or images.crop else dataset
        if network.freeze_backbone:
            model.backbone.requires_grad_(False).eval()
        if config.caches_features:
            # The first process makes the cache, the others find it.
            for turn in (True, False):
                if ranks.is_first is turn:
                    source = frozen_features(model, spec, dataset, config, progress)
                ranks.wait()
        run = Run(config, learner, spec, source, sampler, dataset, folder, ranks)
        if ranks.rank:
            # What methods draw at random is each process's own.
            torch.manual_seed(config.seed + (ranks.rank << 32))
        if if_exists == "resume":
            run.restore()
        if ranks.is_first:
            add_to_history(folder.root, "train", config.data, dataset, ranks.size)
        tracker = config.saving.tracker if ranks.is_first else "none"
        with _interrupt_flag() as interrupted, tracked_by(tracker, folder.root, config.options()) as track:
            run.train(progress, track, interrupted, validate)
    return TrainResult(run.network.eval(), run.spec, skipped, ranks.is_first)


def frozen_features(
    model: IIRNetwork, spec: NetworkSpec, dataset: LocalizationDataset, config: TrainConfig, progress: Progress
) -> CachedFeatures:
    """Return the shared maps of a data set under a frozen backbone, from the cache or computed now.

    Args:
        model: its backbone makes the maps.
        spec: of that model; tells the image size.
        dataset: with the transform that the backbone's weights want.
        config: tells the cache's folder and the number of loading processes.
        progress: shows a bar where maps must be computed.

    Returns:
        The maps, on disk, with the labels.
    """
    task = progress.add_task(f"features of {dataset.split}", total=len(dataset), note="", visible=False)
    loader: DataLoader[Any] = DataLoader(dataset, FEATURE_BATCH, num_workers=config.images.workers)

    def advance(images: int) -> None:
        progress.update(task, advance=images, visible=True)

    return cached_features(model.backbone, dataset, loader, spec.image_size, config.images.feature_cache, advance)


@contextmanager
def _interrupt_flag() -> Iterator[list[bool]]:
    """Make a flag that the signals `STOPPING` set, but for SIGHUP where it is ignored, as under nohup. A second SIGINT
    interrupts at once, as it always does."""
    flag = [False]

    def on_signal(signum: int, frame: object) -> None:
        flag[0] = True
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, previous[signal.SIGINT])

    previous: dict[int, Any] = {}
    try:
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, on_signal)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield flag
        return
    try:
        yield flag
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
