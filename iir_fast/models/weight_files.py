"""Weight files as people have them: which of a file's dictionaries are the weights, and under which names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from pickletools import genops
from string import digits
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from iir_fast.app.files import in_short

SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")
"""Of weight files, in any case; all but the last are pickled."""
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "module"),
)
"""Names under which training programs put the weights beside other things; averaged weights go first."""
PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "backbone.")
"""What wrappers of a model put before its names."""

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that pickles of torch call by their names of Python 2."""


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read the weights out of a file with one of `SUFFIXES`, and nothing else that it holds.

    They are those of the dictionary itself, or of the first of `WRAPPERS` in it, at any depth, on the CPU and under the
    file's own names. Pickled files are read with `weights_only=True`. What they name beside tensors, such as NumPy's
    scalars or a program's options, becomes an empty object: no code of a file, nor any that it names, runs.

    Raises:
        ValueError: the file is damaged, or there is no dictionary of tensors in it.
    """
    try:
        content = load_file(path) if path.suffix.lower() == ".safetensors" else _unpickled(path)
        tensors = _state_dict(content)
    except Exception as error:  # pickle, zip and safetensors each raise errors of their own on a damaged file
        # torch puts its own error behind a page of advice.
        reason = in_short(error.__context__ or error)
        raise ValueError(f"Weights file {str(path)!r} cannot be read as a state dict: {reason}") from error
    if not tensors:
        held = f"a dict of {', '.join(map(repr, content))}" if isinstance(content, Mapping) and content else "no dict"
        accepted = f"a dict of named tensors, or one under {', '.join(WRAPPERS)}"
        raise ValueError(
            f"Weights file {str(path)!r} holds something else than a state dict: {held}; accepted is {accepted}."
        )
    return tensors


def own_names(
    tensors: Mapping[str, Tensor], names: Collection[str], source: str, heads: Collection[str] = ()
) -> dict[str, Tensor]:
    """Bring weights from a file, whose names may begin with `PREFIXES`, under the names of the model they are for.

    Args:
        heads: parts of the model, by the first word of their names, whose weights may be another model's.

    Raises:
        ValueError: two tensors claim one name, or there are layers beyond the model's, as in the file of a deeper one.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = name
        while own not in names and (prefix := next((each for each in PREFIXES if own.startswith(each)), "")):
            own = own.removeprefix(prefix)
        if own in renamed and own in names:
            raise ValueError(f"Weights {source!r} hold two tensors for {own!r}; one is accepted.")
        renamed[own] = tensor
    children: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for depth, part in enumerate(parts):
            children.setdefault(".".join(parts[:depth]), set()).add(part)
    for name in renamed:
        if name.partition(".")[0] not in heads and _is_beyond(name, children):
            raise ValueError(
                f"Weights {source!r} do not fit the backbone: they hold {name!r}, a layer that it does not have; "
                "they are another network's, perhaps a deeper one's."
            )
    return renamed


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor that holds NaN or infinities."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def is_odd(tensor: Tensor) -> bool:
    """Tell whether a tensor is sparse, quantized or without memory, which no weights of this package are."""
    return tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta"


def _is_beyond(name: str, children: Mapping[str, Collection[str]]) -> bool:
    """Tell whether a name belongs to a layer that goes on with the numbers of a model's own, as layer1.2 does."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        siblings = children.get(".".join(parts[:depth]), ())
        if part not in siblings:
            # At the root layers of all kinds stand side by side, bn1 and bn2; there only a bare number goes on.
            stem = part.rstrip(digits)
            numbered = any(each != stem and each.rstrip(digits) == stem for each in siblings)
            return part != stem and numbered and (depth > 0 or not stem)
    return False


class _Nothing:
    """Stands for whatever NumPy makes of what a file gives it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Holder:
    """Stands for anything else: an empty dictionary, which may be filled as an object's attributes and items are."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def _unpickled(path: Path) -> Any:
    if is_zipfile(path):
        named = get_unsafe_globals_in_checkpoint(path)
    else:  # from before torch 1.6: four pickles in a row
        with path.open("rb") as file:
            named = [_full_name(str(each)) for _ in range(4) for op, each, _ in genops(file) if op.name == "GLOBAL"]
    stand_ins: list[Any] = [(_Nothing if name.startswith("numpy") else _Holder, name) for name in named]
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def _full_name(named: str) -> str:
    """Name what a pickle names as "module name", where modules have their names of Python 2."""
    module, _, name = named.partition(" ")
    return f"{PYTHON_2.get(module, module)}.{name}"


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Find the weights in what a file holds; empty where there are none."""
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        if found := _state_dict(content.get(name)):
            return found
    found = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if odd := next((name for name, tensor in found.items() if is_odd(tensor)), None):
        raise ValueError(f"{odd!r} is sparse, quantized or without memory")
    return found
