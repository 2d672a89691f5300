"""Where a training is watched from elsewhere: TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from iir_fast.app.files import in_short
from iir_fast.training.parts import TrackerName

Track: TypeAlias = Callable[[Mapping[str, float], Mapping[str, Image.Image], int], None]
"""Takes figures and pictures by their names, and the step that they are of."""


def check_tracker(name: TrackerName) -> None:
    """Raise ModuleNotFoundError where a tracker is not installed."""
    if name != "none" and find_spec(name) is None:
        raise ModuleNotFoundError(
            f'tracker {name} needs {name}, which is not installed: pip install "iir-fast[{name}]"'
        )


@contextmanager
def tracked_by(name: TrackerName, root: Path, options: Mapping[str, Any]) -> Iterator[Track]:
    """Open a tracker that is installed; it is closed as failed where an exception ends the training.

    TensorBoard's files go to `root`, the run's folder. Environment variables of their own say where W&B and MLflow keep
    a run, which is called as the folder is, with its options. Raises a RuntimeError where a tracker cannot be opened.
    """
    trackers = {"none": _none, "tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    with ExitStack() as opened:
        try:
            track = opened.enter_context(trackers[name](root, options))
        except Exception as error:  # each has errors of its own
            raise RuntimeError(f"tracker {name} cannot be opened: {in_short(error)}") from error
        yield track


@contextmanager
def _none(root: Path, options: Mapping[str, Any]) -> Iterator[Track]:
    yield lambda figures, pictures, step: None


@contextmanager
def _tensorboard(root: Path, options: Mapping[str, Any]) -> Iterator[Track]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(root)) as writer:

        def track(figures: Mapping[str, float], pictures: Mapping[str, Image.Image], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)
            for name, picture in pictures.items():
                writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

        yield track


@contextmanager
def _wandb(root: Path, options: Mapping[str, Any]) -> Iterator[Track]:
    import wandb

    with wandb.init(name=root.name, config=dict(options)) as run:

        def track(figures: Mapping[str, float], pictures: Mapping[str, Image.Image], step: int) -> None:
            run.log({**figures, **{name: wandb.Image(picture) for name, picture in pictures.items()}}, step=step)

        yield track


@contextmanager
def _mlflow(root: Path, options: Mapping[str, Any]) -> Iterator[Track]:
    import mlflow

    with mlflow.start_run(run_name=root.name):
        mlflow.log_params(dict(options))

        def track(figures: Mapping[str, float], pictures: Mapping[str, Image.Image], step: int) -> None:
            mlflow.log_metrics(dict(figures), step=step)
            for name, picture in pictures.items():
                mlflow.log_image(picture, key=name, step=step)

        yield track
