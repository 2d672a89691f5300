"""The compiled part of the evaluator, where it was installed with a C++ compiler."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@cache
def compiled() -> ctypes.CDLL | None:
    """What `contours.cpp` and `histogram.cpp` became; None where there was no compiler to install them with.

    Calls run without the interpreter lock.
    """
    path = Path(__file__).with_name("_compiled.library")
    return ctypes.CDLL(str(path)) if path.exists() else None


def address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    """A contiguous array as a compiled function takes it."""
    return ctypes.c_void_p(array.ctypes.data)
