"""Score maps of every kind that an evaluator may meet, generated."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]


def upsampled(random: np.random.Generator, size: int, cells: int) -> Map:
    """A random map [cells, cells], brought to [size, size] and [0, 1] as a CAM is."""
    values = cv2.resize(random.random((cells, cells)), (size, size), interpolation=cv2.INTER_CUBIC)
    spread: Map = (values - values.min()) / np.ptp(values)
    return spread


def _nested(random: np.random.Generator, size: int) -> Map:
    """Rings in rings, one pixel and more wide: contours of holes that are as large as those around them."""
    y, x = np.mgrid[:size, :size]
    center = random.integers(0, size, 2)
    distance = np.maximum(abs(y - center[0]), abs(x - center[1]))
    rings: Map = (distance // random.integers(1, 4) % 2 * random.integers(1, 6, (size, size))) / 5
    return rings


def _borders(random: np.random.Generator, size: int) -> Map:
    values = np.zeros((size, size))
    for axis, side in ((0, 0), (0, -1), (1, 0), (1, -1)):
        np.moveaxis(values, axis, 0)[side] = random.random(size) * random.integers(0, 2)
    return values


def _pixel(random: np.random.Generator, size: int) -> Map:
    values = np.zeros((size, size))
    values[tuple(random.integers(0, size, 2))] = 1
    return values


KINDS: dict[str, Callable[[np.random.Generator, int], Map]] = {
    "noise": lambda random, size: random.random((size, size)),
    "few levels": lambda random, size: random.integers(0, 4, (size, size)) / 3,
    "two levels": lambda random, size: (random.random((size, size)) < random.random()).astype(float),
    "saturated": lambda random, size: np.clip(2 * upsampled(random, size, 5) - 0.5, 0, 1),
    "smooth": lambda random, size: upsampled(random, size, 3),
    "7x7": lambda random, size: upsampled(random, size, 7),
    "14x14": lambda random, size: upsampled(random, size, 14),
    "28x28": lambda random, size: upsampled(random, size, 28),
    "nested": _nested,
    "borders": _borders,
    "one pixel": _pixel,
    "zeros": lambda random, size: np.zeros((size, size)),
    "ones": lambda random, size: np.ones((size, size)),
    "faint": lambda random, size: random.random((size, size)) * 0.02,
}


def true_boxes(random: np.random.Generator, size: int) -> NDArray[np.int64]:
    """One to three boxes [n, 4] in a map [size, size]."""
    corners = np.sort(random.integers(0, size, (int(random.integers(1, 4)), 2, 2)), axis=1)
    return corners.reshape(-1, 4)
