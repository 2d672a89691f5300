"""Which implementation of an operator runs, and why.

``IIR_FAST_BACKEND=reference|host`` in the environment, or ``with backend("host"):`` in code, forces one
implementation for every operator. Without either, the best one that can run on the tensors' device is taken.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

BACKENDS = ("reference", "host")

_logger = logging.getLogger("iir_fast")
_announced: set[tuple[str, str]] = set()


def _checked(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where} is {name!r}; this build has the backends {', '.join(BACKENDS)}.")
    return name


_environment = os.environ.get("IIR_FAST_BACKEND")
_forced: str | None = _checked(_environment, "IIR_FAST_BACKEND") if _environment else None


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force one implementation of every operator inside a ``with`` block.

    The choice holds for the whole process, other threads included. A backward pass that runs after the block has
    ended is free to choose again; all implementations keep the same contract.

    Args:
        name: "reference" or "host".

    Raises:
        ValueError: `name` is not a backend of this build.
    """
    global _forced
    previous, _forced = _forced, _checked(name, "backend")
    try:
        yield
    finally:
        _forced = previous


def is_reference_forced() -> bool:
    """Whether the plain differentiable implementations were asked for; they bypass the registered operators."""
    return _forced == "reference"


def choose(available: Collection[str], device_type: str) -> str:
    """Name the implementation that a registered operator runs on `device_type`, and log each new choice once."""
    chosen = _forced if _forced is not None and _forced in available else "host"
    if (chosen, device_type) not in _announced:
        _announced.add((chosen, device_type))
        reason = "it was forced" if _forced == chosen else "it is the fastest that can run there"
        _logger.info("operators on %s tensors run on the %s backend: %s.", device_type, chosen, reason)
    return chosen
