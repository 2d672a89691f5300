"""The checkpoints of one run: the last few, the best one, and the newest that can be read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iir_fast.app.files import remove_leftovers, whole_file
from iir_fast.models.checkpoint import NetworkSpec, read_checkpoint, save_checkpoint
from iir_fast.models.network import IIRNetwork
from iir_fast.models.weight_files import not_finite

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in the folder of a run."""
BEST = "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What was read.

    Attributes:
        path: the file.
        spec: what builds the model again.
        model: its state.
        training: the training loop's state; None where there was none.
        damaged: for every newer file that could not be read, why.
    """

    path: Path
    spec: NetworkSpec
    model: dict[str, Any]
    training: dict[str, Any] | None
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder of checkpoints named by their training step: `00000120.pt`; beside them perhaps `best.pt`.

    Every file under its name is whole, or was damaged by something else than an interrupted write.

    Attributes:
        root: the folder; made when the first checkpoint is saved.
    """

    root: Path

    def files(self) -> list[Path]:
        """List the checkpoints by step, oldest first."""
        return sorted(file for file in self.root.glob("*.pt") if file.stem.isdecimal())

    @property
    def best(self) -> Path:
        """Where the best checkpoint is."""
        return self.root / BEST

    def save(self, step: int, spec: NetworkSpec, model: IIRNetwork, training: dict[str, Any], keep: int = 2) -> Path:
        """Write a checkpoint, then remove all but the last few.

        Args:
            step: training steps done.
            spec: what builds the model again.
            model: its weights and prototypes are stored.
            training: the training loop's own state.
            keep: how many are left, at least 1.

        Returns:
            The file.

        Raises:
            OSError: it could not be written; the older ones are untouched.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.root)
        file = self.root / f"{step:08d}.pt"
        save_checkpoint(file, spec, model, training)
        for old in self.files()[:-keep]:
            old.unlink()
        return file

    def keep_as_best(self, file: Path) -> None:
        """Copy a checkpoint to `best.pt`, aside first and then in place.

        Args:
            file: one of `files`.
        """
        with whole_file(self.best) as aside:
            shutil.copyfile(file, aside)

    def newest(self) -> Checkpoint | None:
        """Read the newest checkpoint that can be read, on the CPU; None if there is none at all.

        Raises:
            ValueError: there are some, and not one can be read.
        """
        damaged: list[str] = []
        for file in reversed(self.files()):
            try:
                return Checkpoint(file, *read_checkpoint(file), tuple(damaged))
            except ValueError as error:
                damaged.append(str(error))
        if damaged:
            raise ValueError(f"not one checkpoint in {self.root} can be read; the newest: {damaged[0]}")
        return None


def load_network(path: str | Path, device: str | torch.device = "cpu") -> tuple[IIRNetwork, NetworkSpec]:
    """Load a trained network in eval mode.

    Args:
        path: a checkpoint, or the folder of a run: then its newest one that can be read.
        device: where the model is put.

    Returns:
        The model, and what it was built from: class names, image size, backbone, head.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint`, or the run has no checkpoint.
        ValueError: the network holds NaN or infinities: it would find nothing anywhere.
    """
    path = Path(path)
    if path.is_dir():
        found = CheckpointFolder(path / CHECKPOINTS).newest()
        if found is None:
            raise FileNotFoundError(f"run {path} has no checkpoint in {path / CHECKPOINTS}.")
        spec, state = found.spec, found.model
    else:
        spec, state, _ = read_checkpoint(path)
    if broken := not_finite(state):
        raise ValueError(f"the network in {path} is broken: {broken!r} holds NaN or infinities.")
    model = spec.build()
    model.load_state_dict(state)
    return model.to(device).eval(), spec
