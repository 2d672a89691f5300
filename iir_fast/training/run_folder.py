"""The folder of one run: configuration, checkpoint, metrics, scalars."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iir_fast.models import CHECKPOINTS, CheckpointFolder
from iir_fast.training.config import TrainConfig

PART = ".part"
IfExists = Literal["refuse", "resume", "overwrite"]
"""What to do with the folder of a run that is there already."""
FREE_TO_CHANGE = ("device", "workers", "checkpoint_every", "checkpoints", "log_every", "detect_anomaly")
"""Options that decide nothing of the result: a run may be resumed with others."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the folder of a run.

    Attributes:
        root: the folder; it need not exist.
    """

    root: Path

    @property
    def config(self) -> Path:
        """`config.yaml`: every option."""
        return self.root / "config.yaml"

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The folder of its checkpoints."""
        return CheckpointFolder(self.root / CHECKPOINTS)

    @property
    def metrics(self) -> Path:
        """`metrics.json`: the evaluations of each split, by map."""
        return self.root / "metrics.json"

    def check(self, config: TrainConfig, if_exists: IfExists) -> None:
        """Raise where `open` would, and change nothing.

        Args:
            config: what the run will do.
            if_exists: what to do with a folder that exists and is not empty.

        Raises:
            FileExistsError: the folder is there and `if_exists` is "refuse", or it is no run that may be overwritten.
            ValueError: a run that is to be resumed was configured differently; the options are named.
        """
        if not self.root.exists() or (self.root.is_dir() and all(file.suffix == PART for file in self.root.iterdir())):
            return
        if if_exists == "refuse":
            raise FileExistsError(f"output folder {self.root} exists; choose to resume or to overwrite it.")
        if not self.config.is_file():
            raise FileExistsError(f"output folder {self.root} exists and is not the folder of a run; it is left alone.")
        if if_exists == "resume":
            _check_same(TrainConfig.from_yaml(self.config.read_text(encoding="utf-8")), config)

    def open(self, config: TrainConfig, if_exists: IfExists) -> None:
        """Make the folder of a new run, or take up an old one; writes `config.yaml`.

        Args:
            config: what the run will do.
            if_exists: what to do with a folder that exists and is not empty.

        Raises:
            FileExistsError, ValueError: as `check`.
        """
        self.check(config, if_exists)
        if if_exists == "overwrite" and self.root.exists():
            shutil.rmtree(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        _write_whole(self.config, config.to_yaml())

    def read_metrics(self) -> dict[str, Any]:
        """Read what `metrics.json` holds; empty before the first evaluation."""
        if not self.metrics.is_file():
            return {}
        content: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return content

    def write_metrics(self, content: dict[str, Any]) -> None:
        """Replace `metrics.json`, aside first and then in place.

        Args:
            content: what JSON can hold; split -> map -> `Metrics.to_dict()`.
        """
        _write_whole(self.metrics, json.dumps(content, indent=2) + "\n")


def _write_whole(file: Path, text: str) -> None:
    """Write a file so that a process that is killed leaves it as it was."""
    aside = file.with_name(file.name + PART)
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)


def _check_same(old: TrainConfig, new: TrainConfig) -> None:
    before, now = old.absolute().options(), new.absolute().options()
    # Of two methods each has options of its own.
    shared = [name for name in now if name in before and name not in FREE_TO_CHANGE]
    if differing := [name for name in shared if before[name] != now[name]]:
        changes = ", ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in differing)
        raise ValueError(f"the run to resume was configured differently: {changes}.")
