"""Histograms of the scores on and off the objects, from which PxAP is made."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation.library import address, compiled


def count_scores(
    scoremap: NDArray[np.float64],
    on_object: NDArray[np.bool_],
    elsewhere: NDArray[np.bool_],
    edges: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `np.histogram` counts under each of two masks.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        on_object: bool [H, W].
        elsewhere: bool [H, W], nowhere true where `on_object` is.
        edges: float64 [bins + 1], ascending from 0 to more than 1; a score belongs to the bin whose lower edge is the
            last that does not exceed it.

    Returns:
        int64 [bins] twice: the scores on the object and those elsewhere.
    """
    bins, library = len(edges) - 1, compiled()
    if library is None:
        indices = np.searchsorted(edges, scoremap, side="right") - 1
        return np.bincount(indices[on_object], minlength=bins), np.bincount(indices[elsewhere], minlength=bins)
    foreground, background = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    scoremap, edges = np.ascontiguousarray(scoremap, np.float64), np.ascontiguousarray(edges, np.float64)
    on_object, elsewhere = np.ascontiguousarray(on_object, np.bool_), np.ascontiguousarray(elsewhere, np.bool_)
    library.iir_fast_count_scores(
        address(scoremap),
        address(on_object),
        address(elsewhere),
        ctypes.c_int64(scoremap.size),
        address(edges),
        ctypes.c_int64(bins),
        ctypes.c_double(edges[1]),
        address(foreground),
        address(background),
    )
    return foreground, background
