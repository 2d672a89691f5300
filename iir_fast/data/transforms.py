"""From a PIL image to the tensor a network reads."""

from __future__ import annotations

import torch
from torchvision.transforms import v2  # type: ignore[import-untyped]

from iir_fast.data.dataset import Transform


def image_transform(
    size: int, mean: tuple[float, ...], std: tuple[float, ...], flip: bool = False, crop: bool = False
) -> Transform:
    """Resize, crop and flip if asked to, and normalize.

    The image is resized while it is still a PIL image: Pillow resamples in integers, so that every machine gets the
    same pixels. An image of the right size keeps its pixels.

    Args:
        size: side of the square result, in pixels; the aspect ratio is not kept, as the WSOL protocol has it.
        mean: what is subtracted from the channels, for values in [0, 1].
        std: what the channels are divided by afterwards.
        flip: mirror every second image left to right, chosen by torch's global random generator (for training).
        crop: resize to 8/7 of the size, 256 for 224, and cut a square out at random, by the same generator.

    Returns:
        A callable, picklable, from an RGB image to a float32 tensor [3, size, size].

    Raises:
        ValueError: `size` is below 1 or `std` has an entry that is not positive.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive in every channel, got {std}")
    resized = round(size * 8 / 7) if crop else size
    crops = [v2.RandomCrop(size)] if crop else []
    flips = [v2.RandomHorizontalFlip()] if flip else []
    transform: Transform = v2.Compose(
        [
            v2.Resize((resized, resized), antialias=True),
            *crops,
            *flips,
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(mean), list(std)),
        ]
    )
    return transform
