"""A trained network on disk: weights, prototypes and what is needed to build it again."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iir_fast.app.files import in_short, whole_file
from iir_fast.head import ThresholdKind
from iir_fast.models.network import IIRNetwork
from iir_fast.models.weight_files import is_odd


@dataclass(frozen=True)
class NetworkSpec:
    """Everything but the weights.

    Attributes:
        backbone, output_stride, out_index, hidden, threshold, erase: as in IIRNetwork.
        class_mean: as in IIRNetwork; checkpoints that do not name it have plain CAMs.
        centred: of the network, as training chose it; checkpoints that do not name it have CAMs as they were trained.
        classes: class names in the order of the labels.
        image_size: side of the square input, in pixels.
    """

    backbone: str
    classes: tuple[str, ...]
    image_size: int
    output_stride: int | None = None
    out_index: int | None = None
    hidden: int | None = 512
    threshold: ThresholdKind = "learned"
    class_mean: float = 1.0
    erase: float | None = None
    centred: bool = False

    def build(self, weights: str = "random") -> IIRNetwork:
        """Build a network with a fresh head.

        Args:
            weights: of its backbone, as `create_backbone` takes them.

        Returns:
            The network, in training mode.

        Raises:
            ValueError: as `IIRNetwork`.
        """
        head = self.hidden, self.threshold, self.class_mean, self.erase
        network = IIRNetwork(self.backbone, len(self.classes), weights, self.output_stride, self.out_index, *head)
        network.centred = self.centred
        return network


def save_checkpoint(path: Path, spec: NetworkSpec, model: IIRNetwork, training: dict[str, Any] | None = None) -> None:
    """Write a checkpoint, aside first and then in place, so that an interrupted write leaves the old one.

    Args:
        path: the file.
        spec: what builds the model again.
        model: its weights and prototypes are stored.
        training: the training loop's own state, tensors and plain values; not needed to localize.

    Raises:
        OSError: the file could not be written, e.g. because the disk is full; what was there before still is.
    """
    content = {"spec": asdict(spec), "model": model.state_dict(), "training": training}
    with whole_file(path) as aside:
        try:
            with aside.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
        # torch's writer says what the operating system said in words of its own.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            text = f"checkpoint {path} could not be written ({reason}); what was there before still is."
            raise OSError(text) from error
    # The new name must survive a power cut, too.
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> tuple[NetworkSpec, dict[str, Any], dict[str, Any] | None]:
    """Read what a checkpoint holds, on the CPU.

    Args:
        path: the file.

    Returns:
        Specification, model state, and training state, which is None where there was none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint of this package, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        spec = NetworkSpec(**{**content["spec"], "classes": tuple(content["spec"]["classes"])})
        _check(spec, content["model"])
        return spec, content["model"], content["training"]
    except Exception as error:
        raise ValueError(f"checkpoint {path} cannot be read as one of iir_fast: {in_short(error)}") from error


def _check(spec: NetworkSpec, state: dict[str, Any]) -> None:
    """Raise unless a state is that of such a network, which takes no memory here."""
    if (
        type(spec.image_size) is not int
        or type(spec.centred) is not bool
        or spec.image_size < 1
        or not all(isinstance(each, str) for each in spec.classes)
    ):
        raise ValueError("its image size is no size, its classes have no names, or centred is neither true nor false")
    with torch.device("meta"):
        wanted = spec.build().state_dict()
    for name in {**wanted, **state}:
        given = state.get(name)
        if name not in wanted or not isinstance(given, Tensor) or given.shape != wanted[name].shape or is_odd(given):
            raise ValueError(f"{name!r} is not what the network that it names has")
