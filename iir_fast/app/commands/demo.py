"""`iir-fast demo`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from iir_fast.app.demo import run_demo, tabulate_results
from iir_fast.training import Optimization, TrainConfig


@dataclass(frozen=True)
class Demo:
    """Train CAM and IIR with the same budget on generated images; print one table, save one picture."""

    out: tyro.conf.Positional[Path] = Path("runs/demo")
    """New folder for the runs and the picture."""
    seeds: int = 3
    """Runs of each method, from different seeds."""
    epochs: int = Optimization.epochs
    """Passes over the training images."""
    train_images: int | None = None
    """Size of the training set, if not 4,000."""
    test_images: int | None = None
    """Size of the test set, if not 800."""

    def run(self) -> None:
        started = time.monotonic()
        images = {"train_images": self.train_images, "test_images": self.test_images}
        config = TrainConfig().with_options(epochs=self.epochs, **images)
        metrics, picture = run_demo(config, self.out, self.seeds)
        Console().print(tabulate_results(metrics))
        Console().print(
            "Thresholds were chosen on the test split itself, as the protocol of MaxBoxAcc has it.\n"
            f"Picture: {picture}   ({time.monotonic() - started:.0f} s)",
            highlight=False,
        )
