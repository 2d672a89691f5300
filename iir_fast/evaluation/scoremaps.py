"""Score maps: from a network's map to the protocol's 224 x 224, and to and from disk."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from iir_fast.app.files import write_whole

PROTOCOL_SIZE = 224
"""Side of a score map, in pixels: what the protocol evaluates images at."""


def resize_scoremap(maps: Tensor) -> NDArray[np.float64]:
    """Resize maps to the protocol's size, then stretch each one to [0, 1].

    Bicubic interpolation comes first and normalization second, both in float64 and on the CPU, so that the same map
    gives the same bits on every device.

    Args:
        maps: [B, H, W] or [H, W], any floating dtype and device.

    Returns:
        float64 [B, 224, 224] or [224, 224]. A map that is constant or holds NaN or an infinity becomes zeros.

    Raises:
        ValueError: `maps` has another number of dimensions, or no pixels.
    """
    if maps.dim() not in (2, 3) or 0 in maps.shape[-2:]:
        raise ValueError(f"maps has shape {list(maps.shape)}; [H, W] or [B, H, W] with at least one pixel is accepted.")
    small = maps.detach().to("cpu", torch.float64).reshape(-1, 1, *maps.shape[-2:])
    shape = (PROTOCOL_SIZE, PROTOCOL_SIZE)
    if len(small) == 0:
        return np.zeros((0, *shape))
    resized: NDArray[np.float64] = functional.interpolate(small, shape, mode="bicubic", align_corners=False).numpy()
    for before, after in zip(small.numpy(), resized, strict=True):
        # Looked for in the small map: the resize may skip a bad pixel, and its weights sum to one only up to rounding,
        # which would turn a constant into noise for the division to blow up.
        if np.isfinite(before).all() and before.min() < before.max():
            after -= after.min()
            after /= after.max() or 1
        else:
            after.fill(0)
    return resized.reshape(*maps.shape[:-2], *shape)


def check_scoremap(scoremap: NDArray[np.float64], name: str) -> None:
    """Raise ValueError, under that name, unless a score map is float64 [224, 224] with every value in [0, 1]."""
    if scoremap.dtype != np.float64 or scoremap.shape != (PROTOCOL_SIZE, PROTOCOL_SIZE):
        raise ValueError(
            f"{name} is {scoremap.dtype} {list(scoremap.shape)}; "
            f"float64 [{PROTOCOL_SIZE}, {PROTOCOL_SIZE}] is accepted (resize_scoremap makes it)."
        )
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
    path = _path(root, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(content := BytesIO(), scoremap)
    write_whole(path, content.getvalue())
    return path


def load_scoremap(root: Path, image_id: str) -> NDArray[np.float64]:
    """Read the score map of an image from `<root>/<image_id>.npy`.

    Args:
        root: the folder of all score maps.
        image_id: path of the image relative to its data root.

    Returns:
        float64 [224, 224] in [0, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no array, the array is not what the protocol accepts, or `image_id` points outside
            `root`.
    """
    path = _path(root, image_id)
    try:
        scoremap: NDArray[np.float64] = np.load(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"image {image_id!r} has no score map: {path} does not exist.") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"the score map {path} cannot be read as a NumPy array: {error}") from error
    check_scoremap(scoremap, f"the score map {path}")
    return scoremap


def _path(root: Path, image_id: str) -> Path:
    relative = PurePosixPath(image_id)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"image_id {image_id!r} points outside the score map folder; a relative path is accepted.")
    return Path(root) / f"{image_id}.npy"
