"""The compiled part of the evaluator, where it was installed with a C++ compiler."""

from __future__ import annotations

from ctypes import CDLL, c_int64, c_void_p
from functools import cache
from pathlib import Path

REFUSED = -2
"""What its functions return for arguments that would lead them out of their arrays."""


@cache
def compiled() -> CDLL | None:
    """Load what `contours.cpp` and `histogram.cpp` became; None where there was no compiler to install them with.

    Its functions take addresses of contiguous arrays and run without the interpreter lock.
    """
    path = Path(__file__).with_name("_compiled.library")
    if not path.exists():
        return None
    library, array = CDLL(str(path)), c_void_p
    library.iir_fast_score_contours.argtypes = [array, c_int64, c_int64, array, c_int64, array, array]
    library.iir_fast_count_scores.argtypes = [array, array, array, c_int64, array, c_int64, array, array]
    return library
