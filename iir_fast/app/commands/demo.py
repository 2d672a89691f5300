"""`iir-fast demo`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console


@dataclass(frozen=True)
class Demo:
    """Train CAM and IIR with the same budget on generated images; print one table, save one picture."""

    out: tyro.conf.Positional[Path] = Path("runs/demo")
    """Folder for the runs and the picture, a new one unless runs are resumed."""
    seeds: int = 3
    """Runs of each method, from different seeds."""
    epochs: int | None = None
    """Passes over the training images, if not 5."""
    train_images: int | None = None
    """Size of the training set, if not 4,000."""
    test_images: int | None = None
    """Size of the test set, if not 800."""
    resume: bool = False
    """Go on with the runs that are in the folder, e.g. after Ctrl-C."""

    def run(self) -> None:
        from iir_fast.app.demo import run_demo, tabulate_results
        from iir_fast.training import TrainConfig

        started = time.monotonic()
        options = {"epochs": self.epochs, "train_images": self.train_images, "test_images": self.test_images}
        config = TrainConfig().with_options(**{name: value for name, value in options.items() if value is not None})
        metrics, picture = run_demo(config, self.out, self.seeds, self.resume)
        Console().print(tabulate_results(metrics))
        Console().print(
            "Thresholds were chosen on the test split itself, as the protocol of MaxBoxAcc has it.\n"
            f"Picture: {picture}   ({time.monotonic() - started:.0f} s)",
            highlight=False,
        )
