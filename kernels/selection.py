"""Which implementation of an operator runs, and why.

``IIR_FAST_BACKEND=reference|native|triton`` in the environment, or ``with backend("native"):`` in code, forces one
implementation for every operator. Without either, CUDA and ROCm tensors use the Triton kernels when triton can be
imported and can launch kernels, and everything else the native implementations. What these do not support, such as
float64, runs on the reference.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("reference", "native", "triton")
RENAMED = {"host": "native"}

_logger = logging.getLogger("iir_fast")
_announced: set[tuple[str, str]] = set()


def _checked(name: str, where: str) -> str:
    if name in RENAMED:
        warnings.warn(
            f"{where} is {name!r}, which is called {RENAMED[name]!r} now; the next release will not know the old name.",
            FutureWarning,
            stacklevel=4,
        )
        return RENAMED[name]
    if name not in BACKENDS:
        raise ValueError(f"{where} is {name!r}; accepted are {', '.join(BACKENDS)}.")
    return name


_environment = os.environ.get("IIR_FAST_BACKEND")
_forced: str | None = _checked(_environment, "IIR_FAST_BACKEND") if _environment else None


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force one implementation of every operator inside a ``with`` block; "native" where it supports the tensors.

    The choice holds for the whole process, other threads included. A backward pass that runs after the block has
    ended is free to choose again; all implementations keep the same contract.

    Args:
        name: "reference", "native" or "triton".

    Raises:
        ValueError: `name` is none of these.
        RuntimeError: `name` is "triton" and triton cannot be imported. (An operator called inside the block raises
            it when its tensors are where Triton kernels cannot run, or it cannot launch them.)
    """
    global _forced
    name = _checked(name, "backend")
    if name == "triton":
        _require_triton()
    previous, _forced = _forced, name
    try:
        yield
    finally:
        _forced = previous


def calls_reference(supports: Callable[..., bool] | None = None, *tensors: Tensor | None) -> bool:
    """Tell whether the plain differentiable implementation is called in place of the registered operator.

    Args:
        supports: whether an operator's native implementation takes these tensors; None: it takes all.
        *tensors: the operator's floating arguments, the first of them on its device.
    """
    if _forced == "reference":
        return True
    if supports is None or (tensors[0] is not None and _runs_triton(tensors[0].device.type)):
        return False
    return not supports(*tensors)


def _runs_triton(device_type: str) -> bool:
    """Choose as `choose` does, for torch.compile to follow."""
    return _forced == "triton" if _forced else device_type == "cuda" and _can_launch()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _can_launch() -> bool:
    return _fault("cuda") is None


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
        falls_back = device_type == "cuda" and choice.backend == "native" and _forced is None
        level = logging.WARNING if falls_back else logging.INFO
        _logger.log(level, "operators on %s tensors run on the %s backend: %s.", device_type, *choice)
    return choice


def _choice(device_type: str) -> Choice:
    if _forced == "triton":
        _require_triton(device_type)
    if _forced in ("native", "triton"):
        return Choice(_forced, "it was forced")
    if _forced == "reference":
        return Choice("native", "the reference has no registered operator of its own")
    if device_type != "cuda":
        return Choice("native", "it is the fastest that can run there")
    fault = _fault("cuda")
    if fault is None:
        return Choice("triton", "it is the fastest that can run there")
    return Choice("native", f"triton, which has the GPU kernels, {fault}")


def may_run_triton(device_type: str) -> bool:
    """Tell whether Triton's kernels may be chosen on a device type, now or after what is forced has ended."""
    return device_type == "cuda" or _interprets() or _environment == "triton"


def _require_triton(device_type: str | None = None) -> None:
    """Raise RuntimeError where triton cannot run kernels on a type of device; None: where it cannot run any."""
    fault = _fault(device_type)
    if fault is not None:
        raise RuntimeError(f"backend is 'triton', and triton {fault}; accepted here is 'native'.")
    if device_type not in ("cuda", None) and not _interprets():
        raise RuntimeError(
            f"backend is 'triton' and the tensors are on {device_type}; accepted are CUDA and ROCm tensors, "
            "or any tensors in a process started with TRITON_INTERPRET=1."
        )


def _interprets() -> bool:
    """Tell whether kernels run in Triton's interpreter, which reads the variable itself when a kernel is defined."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _fault(device_type: str | None) -> str | None:
    """Why triton cannot be used, and on a GPU why it cannot launch there; None when it can."""
    return _import_fault() or (_launch_fault() if device_type == "cuda" and not _interprets() else None)


@cache
def _import_fault() -> str | None:
    """Why triton cannot be imported; None when it can. Never asked before an operator needs to know."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"cannot be imported ({error})"
    return None


@cache
def _launch_fault() -> str | None:
    """Why triton cannot launch kernels on the GPUs of this machine; None when it can.

    What launches them is compiled on the user's machine: Triton (3.5 to 3.9, for CUDA and for ROCm) does so when it is
    first asked for its driver, and keeps the result in its cache. So it is asked, in place of a guess whether it will
    find a compiler, Python's headers and the GPU's own library, or have no need of them.
    """
    try:
        from triton.runtime import driver

        _ = driver.active
    except Exception as error:  # Triton's own, the compiler's, the loader's
        first_line = str(error).partition("\n")[0]
        return (
            f"cannot launch kernels here ({type(error).__name__}: {first_line}); "
            "it needs a C compiler (gcc, clang or what CC names) and the headers of Python (python3-dev)"
        )
    return None
