"""The folder of one run: configuration, checkpoint, metrics, scalars."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iir_fast.app.files import PARTS, read_object, read_text, remove_leftovers, set_aside, write_whole
from iir_fast.app.history import HISTORY
from iir_fast.app.lock import LOCK, OWNER, locked
from iir_fast.app.progress import log
from iir_fast.evaluation.metrics import check_stored
from iir_fast.models import CHECKPOINTS, CheckpointFolder
from iir_fast.training.config import TOP, TrainConfig
from iir_fast.training.options import read_yaml

IfExists = Literal["refuse", "resume", "overwrite"]
"""What to do with the folder of a run that is there already."""
FREE_TO_CHANGE = ("device", "workers", "checkpoint_every", "checkpoints", "log_every", "tracker", "detect_anomaly")
"""Options that decide nothing of the result: a run may be resumed with others."""
RESULTS = (
    *(f"{CHECKPOINTS}/{'[0-9]' * 8}.pt", f"{CHECKPOINTS}/best.pt", "checkpoint.pt", "metrics.json"),
    *("report.html", "report_files/[0-9]*.js", "report_files/iou-*.js"),
)
"""What a run that finished a step leaves in its folder, for `Path.glob`; `checkpoint.pt` is an earlier version's."""
TRACES = (
    *("cost.json", HISTORY, "events.out.tfevents.*", "non_finite_step*_rank*.json"),
    *("metrics.json.damaged-*", "cost.json.damaged-*", f"{HISTORY}.damaged-*", PARTS, f"{CHECKPOINTS}/{PARTS}"),
)
"""What any run may leave there beside `config.yaml`."""


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

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes that would train there out, as `iir_fast.app.lock.locked` does."""
        return locked(self.root)

    def check(self, config: TrainConfig, if_exists: IfExists) -> None:
        """Raise where `locked` and `open` would, and change nothing.

        Args:
            config: what the run will do.
            if_exists: what to do with a run that is there and has finished a step; without, it is started anew.

        Raises:
            FileExistsError: such a run is there and `if_exists` is "refuse", or the folder holds something else.
            OSError: another process trains there.
            ValueError: a run that is to be resumed was configured differently; the options are named.
        """
        self._check(config, if_exists)
        if (self.root / OWNER).exists():
            with self.locked():
                pass

    def open(self, config: TrainConfig, if_exists: IfExists) -> None:
        """Make the folder of a new run, or take up an old one; writes `config.yaml`.

        Of a run that is overwritten or started anew, what the package wrote is removed. The rest is left and named.

        Args:
            config: what the run will do.
            if_exists: as for `check`.

        Raises:
            FileExistsError, ValueError: as `check`.
        """
        self._check(config, if_exists)
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.root)
        if self.config.is_file():
            finished = bool(self._found(RESULTS))
            if not finished:
                log(f"{self.root} holds no finished step and is started anew.")
            if not finished or if_exists == "overwrite":
                self._clear()
        write_whole(self.config, config.to_yaml())

    def read_metrics(self) -> dict[str, Any]:
        """Read what `metrics.json` holds; empty before the first evaluation.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.metrics.is_file():
            return {}
        content = read_object(self.metrics)
        by_map = [each for split in content.values() if isinstance(split, dict) for each in split.values()]
        if not all(isinstance(each, dict) for each in (*content.values(), *by_map)):
            raise ValueError(f"{self.metrics} is damaged: it does not hold metrics by split and map")
        for split, maps in content.items():
            for map, metrics in maps.items():
                try:
                    check_stored(metrics)
                except ValueError as error:
                    raise ValueError(f"{self.metrics} is damaged: {split}, {map}: {error}") from error
        return content

    def sound_metrics(self) -> dict[str, Any]:
        """Read what `metrics.json` holds; a damaged one is set aside, for new metrics to be written, and said so."""
        try:
            return self.read_metrics()
        except ValueError as error:
            set_aside(self.metrics, error)
            return {}

    def write_metrics(self, content: dict[str, Any]) -> None:
        """Replace `metrics.json`, aside first and then in place.

        Args:
            content: what JSON can hold; split -> map -> `Metrics.to_dict()`.
        """
        write_whole(self.metrics, json.dumps(content, indent=2) + "\n")

    def _check(self, config: TrainConfig, if_exists: IfExists) -> None:
        if not self.root.exists() or (self.root.is_dir() and not self._others(LOCK, OWNER, PARTS)):
            return
        try:
            found = self._read_config()
        except ValueError as error:
            reason = str(error).rstrip(".")
            text = f"output folder {self.root} exists and is not the folder of a run ({reason}); it is left alone."
            raise FileExistsError(text) from error
        if self._found(RESULTS):
            if if_exists == "refuse":
                raise FileExistsError(f"output folder {self.root} exists; choose to resume or to overwrite it.")
            if if_exists == "resume":
                _check_same(found, config)

    def _read_config(self) -> TrainConfig:
        """Read `config.yaml`, if a run wrote it: of any version, it has all that no part of the options holds."""
        if not self.config.is_file():
            raise ValueError(f"it has no {self.config.name}")
        text = read_text(self.config)
        if missing := [name for name in (*TOP, "method") if name not in read_yaml(text, self.config.name)]:
            raise ValueError(f"its {self.config.name} does not name {', '.join(missing)}")
        return TrainConfig.from_yaml(text, self.config.name)

    def _found(self, patterns: tuple[str, ...]) -> list[Path]:
        return [file for pattern in patterns for file in self.root.glob(pattern)]

    def _others(self, *patterns: str) -> list[str]:
        return sorted({file.name for file in self.root.iterdir()} - {file.name for file in self._found(patterns)})

    def _clear(self) -> None:
        """Remove the files of a run, but `config.yaml`: until the next one is written, the folder is still a run's."""
        for file in self._found((*RESULTS, *TRACES)):
            if not file.is_dir():
                file.unlink()
        for folder in (self.checkpoints.root, self.root / "report_files"):
            with suppress(OSError):  # not there, or files of others are in it
                folder.rmdir()
        if left := self._others(self.config.name, LOCK, OWNER):
            log(f"left in {self.root}, as no run wrote it: {', '.join(left)}.")


def _check_same(old: TrainConfig, new: TrainConfig) -> None:
    before, now = old.absolute().options(), new.absolute().options()
    # Of two methods each has options of its own.
    shared = [name for name in now if name in before and name not in FREE_TO_CHANGE]
    if differing := [name for name in shared if before[name] != now[name]]:
        changes = ", ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in differing)
        raise ValueError(f"the run to resume was configured differently: {changes}.")
