"""Score maps: from a network's map to the protocol's 224 x 224, and to disk."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iir_fast.app.files import write_whole

PROTOCOL_SIZE = 224
"""Side of a score map, in pixels: what the protocol evaluates images at."""


def resize_scoremap(maps: Tensor) -> NDArray[np.float64]:
    """Resize maps to the protocol's size, then stretch each one to [0, 1].

    Bicubic interpolation comes first and normalization second, both in float64 and on the CPU, so that the same map
    gives the same bits on every device. The interpolation is OpenCV's, as the protocol has it: its
    weights are float32, and with exact ones, which torch has, some pixels would be one of 255 levels off.

    Args:
        maps: [B, H, W] or [H, W], any floating dtype and device.

    Returns:
        float64 [B, 224, 224] or [224, 224]. A map that is constant or holds NaN or an infinity becomes zeros.

    Raises:
        ValueError: `maps` is no tensor or not floating, or has another number of dimensions or no pixels.
    """
    if not isinstance(maps, Tensor):
        raise ValueError(f"maps is a {type(maps).__name__}; a floating torch tensor [H, W] or [B, H, W] is accepted.")
    if not maps.is_floating_point() or maps.dim() not in (2, 3) or 0 in maps.shape[-2:]:
        found = f"{str(maps.dtype).removeprefix('torch.')} {list(maps.shape)}"
        raise ValueError(f"maps is {found}; floating [H, W] or [B, H, W] with at least one pixel is accepted.")
    small = maps.detach().to("cpu", torch.float64).reshape(-1, *maps.shape[-2:]).contiguous().numpy()
    shape = (PROTOCOL_SIZE, PROTOCOL_SIZE)
    resized = np.zeros((len(small), *shape))
    for before, after in zip(small, resized, strict=True):
        # Looked for in the small map: the resize may skip a bad pixel, and its weights sum to one only up to rounding,
        # which would turn a constant into noise for the division to blow up.
        if np.isfinite(before).all() and before.min() < before.max():
            after[:] = cv2.resize(before, shape, interpolation=cv2.INTER_CUBIC)
            after -= after.min()
            after /= after.max() or 1
    return resized.reshape(*maps.shape[:-2], *shape)


def check_scoremap(scoremap: NDArray[np.float64], name: str) -> None:
    """Raise ValueError, under that name, unless a score map is float64 [224, 224] with every value in [0, 1]."""
    shape = (PROTOCOL_SIZE, PROTOCOL_SIZE)
    if isinstance(scoremap, np.ndarray) and (scoremap.dtype != np.float64 or scoremap.shape != shape):
        raise ValueError(f"{name} is {scoremap.dtype} {list(scoremap.shape)}; float64 {list(shape)} is accepted.")
    check_scores(scoremap, name)


def check_scores(scoremap: NDArray[np.floating[Any]], name: str) -> None:
    """Raise ValueError, under that name, unless a map is a floating array [H, W] with every value in [0, 1]."""
    if not isinstance(scoremap, np.ndarray):
        raise ValueError(f"{name} is a {type(scoremap).__name__}; a floating NumPy array [H, W] is accepted.")
    if scoremap.dtype.kind != "f" or scoremap.ndim != 2 or not scoremap.size:
        found = f"{scoremap.dtype} {list(scoremap.shape)}"
        raise ValueError(f"{name} is {found}; a floating array [H, W] with at least one pixel is accepted.")
    low, high = scoremap.min(), scoremap.max()
    if not (low >= 0 and high <= 1):  # written so that NaN fails, too
        raise ValueError(f"{name} holds values from {low} to {high}; values in [0, 1] without NaN are accepted.")


def save_scoremap(root: Path, image_id: str, scoremap: NDArray[np.float64]) -> Path:
    """Write a score map to `<root>/<image_id>.npy`, the image's extension kept (`0.jpeg.npy`).

    Args:
        root: the folder of all score maps; it and its sub-folders are made where they are missing.
        image_id: path of the image relative to its data root.
        scoremap: float64 [224, 224] in [0, 1].

    Returns:
        The path of the file.

    Raises:
        ValueError: the map is not what the protocol accepts, or `image_id` points outside `root`.
        OSError: the file could not be written; what was there before still is.
    """
    check_scoremap(scoremap, f"the score map of image {image_id!r}")
    path = scoremap_file(root, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(content := BytesIO(), scoremap)
    write_whole(path, content.getvalue())
    return path


def scoremap_file(root: Path, image_id: str) -> Path:
    """Name the file of an image's score map; ValueError: `image_id` points outside `root`."""
    relative = PurePosixPath(image_id)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"image_id {image_id!r} points outside the score map folder; a relative path is accepted.")
    return Path(root) / f"{image_id}.npy"
