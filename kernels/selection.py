"""Which implementation of an operator runs, and why.

``IIR_FAST_BACKEND=reference|host|triton`` in the environment, or ``with backend("host"):`` in code, forces one
implementation for every operator. Without either, CUDA and ROCm tensors use the Triton kernels when triton can be
imported, and everything else the host implementations.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

BACKENDS = ("reference", "host", "triton")

_logger = logging.getLogger("iir_fast")
_announced: set[tuple[str, str]] = set()


def _checked(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where} is {name!r}; accepted are {', '.join(BACKENDS)}.")
    return name


_environment = os.environ.get("IIR_FAST_BACKEND")
_forced: str | None = _checked(_environment, "IIR_FAST_BACKEND") if _environment else None


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force one implementation of every operator inside a ``with`` block.

    The choice holds for the whole process, other threads included. A backward pass that runs after the block has
    ended is free to choose again; all implementations keep the same contract.

    Args:
        name: "reference", "host" or "triton".

    Raises:
        ValueError: `name` is none of these.
        RuntimeError: `name` is "triton" and triton cannot be imported. (An operator called inside the block raises
            it when its tensors are where Triton kernels cannot run.)
    """
    global _forced
    if _checked(name, "backend") == "triton":
        _require_triton()
    previous, _forced = _forced, name
    try:
        yield
    finally:
        _forced = previous


def is_reference_forced() -> bool:
    """Whether the plain differentiable implementations were asked for; they bypass the registered operators."""
    return _forced == "reference"


class Choice(NamedTuple):
    """An implementation and why it is the one."""

    backend: str
    reason: str


def choose(device_type: str) -> Choice:
    """Choose the implementation that a registered operator runs on tensors of a device type ("cpu", "cuda", ...).

    PyTorch calls ROCm devices "cuda" too. Each new choice is logged once; that a GPU must do without its kernels, as
    a warning.

    Raises:
        RuntimeError: "triton" is forced and cannot run there.
    """
    choice = _choice(device_type)
    if (choice.backend, device_type) not in _announced:
        _announced.add((choice.backend, device_type))
        falls_back = device_type == "cuda" and choice.backend == "host" and _forced is None
        level = logging.WARNING if falls_back else logging.INFO
        _logger.log(level, "operators on %s tensors run on the %s backend: %s.", device_type, *choice)
    return choice


def _choice(device_type: str) -> Choice:
    if _forced == "triton":
        _require_triton()
        # Triton itself reads the variable when a kernel is defined.
        if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise RuntimeError(
                f"backend is 'triton' and the tensors are on {device_type}; accepted are CUDA and ROCm tensors, "
                "or any tensors in a process started with TRITON_INTERPRET=1."
            )
    if _forced in ("host", "triton"):
        return Choice(_forced, "it was forced")
    if _forced == "reference":
        return Choice("host", "the reference has no registered operator of its own")
    if device_type != "cuda":
        return Choice("host", "it is the fastest that can run there")
    fault = _triton_fault()
    if fault is None:
        return Choice("triton", "it is the fastest that can run there")
    return Choice("host", f"triton, which has the GPU kernels, cannot be imported ({fault})")


def _require_triton() -> None:
    fault = _triton_fault()
    if fault is not None:
        raise RuntimeError(f"backend is 'triton', and triton cannot be imported ({fault}); accepted here is 'host'.")


@cache
def _triton_fault() -> str | None:
    """Why triton cannot be imported; None when it can. Never asked before an operator needs to know."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
