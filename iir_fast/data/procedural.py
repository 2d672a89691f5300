"""The embedded data set: generated images whose objects a plain CAM finds only in part.

Every object is a large elliptical body, whose hue tells its class weakly, with a small striped head, whose stripes tell
it strongly. A classifier can do well by the heads alone, so a plain CAM lights up the head and misses the body. Boxes
and masks are exact.

The random numbers are the raw output of PCG64, a stream that numpy guarantees (the distributions of its Generator it
does not), and all arithmetic is elementwise float64, rounded to uint8 once, which swallows what machines may differ in,
the last bits of a sine: every machine makes the same images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import PCG64, SeedSequence
from numpy.typing import NDArray
from PIL import Image

from iir_fast.data.dataset import GroundTruth, LocalizationDataset, Transform, box_around
from iir_fast.data.transforms import image_transform

Array: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]
Split: TypeAlias = Literal["train", "test"]

SIDE = 64  # pixels
NUM_CLASSES = 10
SPLIT_SIZES: dict[Split, int] = {"train": 4000, "test": 800}

_OBJECT_DRAWS = 13  # numbers that describe one object
_DISC_DRAWS = 6  # numbers that describe one distractor disc
_NOISE = ((4, 0.30), (16, 0.15))  # colour noise: cells per side, amplitude
_CHUNK = 32  # images rendered at once: their float64 arrays stay in the cache


@dataclass(frozen=True)
class ProceduralRecipe:
    """What decides how hard the embedded data are.

    Attributes:
        hue_noise: standard deviation of the body's hue about its class's; hues are in [0, 1), classes 0.1 apart.
        head_contrast: of the head's stripes, in [0, 1]; 1 is black and white, 0 a grey disc that tells nothing.
        clutter: of the background; scales the colour noise and the number of distractor discs (4 at 1.0).
    """

    hue_noise: float = 0.05
    head_contrast: float = 1.0
    clutter: float = 1.0

    def __post_init__(self) -> None:
        for name in ("hue_noise", "clutter"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.head_contrast <= 1:
            raise ValueError(f"head_contrast must lie in [0, 1], got {self.head_contrast}")

    @property
    def discs(self) -> int:
        """Number of distractor discs in an image."""
        return round(4 * self.clutter)


class ProceduralDataset(LocalizationDataset):
    """Generated images of 64 x 64 pixels and 10 classes, one object each, held in memory.

    Image `i` has label ``i % 10`` and depends on `seed`, `split`, `i` and `recipe` alone; another recipe changes only
    what it names, not the layout of the image.

    Args:
        split: ``train`` (4,000 images) or ``test`` (800).
        size_of_split: number of images, if another one is wanted.
        seed: not negative; one seed is one data set.
        transform: makes the tensor of an image; by default float32 [3, 64, 64] in [-1, 1].
        recipe: how hard the data are.

    Raises:
        ValueError: `split` is unknown, `size_of_split` below 1 or `seed` negative.
    """

    def __init__(
        self,
        split: Split,
        size_of_split: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        recipe: ProceduralRecipe | None = None,
    ) -> None:
        if split not in SPLIT_SIZES:
            raise ValueError(f"split must be one of {', '.join(SPLIT_SIZES)}, got {split!r}")
        size = SPLIT_SIZES[split] if size_of_split is None else size_of_split
        if size < 1:
            raise ValueError(f"size_of_split must be at least 1, got {size}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self._images, self._masks = _render_split(split, size, seed, recipe or ProceduralRecipe())
        super().__init__(
            classes=tuple(f"class_{k}" for k in range(NUM_CLASSES)),
            labels=tuple(i % NUM_CLASSES for i in range(size)),
            ids=tuple(f"{split}/{i:05d}" for i in range(size)),
            split=split,
            transform=transform or image_transform(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of all pixels; the labels follow from the indices."""
        return hashlib.sha256(self._images.data).hexdigest()[:16]

    def image(self, i: int) -> Image.Image:
        """Give image `i`, RGB, 64 x 64."""
        return Image.fromarray(self._images[i])

    def ground_truth(self, i: int) -> GroundTruth:
        """Give the mask of the one object in image `i`, body and head, and the box that just holds it."""
        mask = self._masks[i]
        return GroundTruth((SIDE, SIDE), box_around(mask), (mask.copy(),))


# While an image is made, the image is the last axis: the numbers that describe it broadcast without further ado, and
# every elementwise operation runs over contiguous memory.


# Several runs in one process, as the demo's, share the arrays: a pure function of the arguments, and read-only.
@lru_cache(maxsize=2)
def _render_split(split: Split, size: int, seed: int, recipe: ProceduralRecipe) -> tuple[Bytes, Bytes]:
    images = np.empty((size, SIDE, SIDE, 3), np.uint8)
    masks = np.empty((size, SIDE, SIDE), np.uint8)
    for chunk in np.split(np.arange(size), range(_CHUNK, size, _CHUNK)):
        images[chunk], masks[chunk] = _render(split, chunk, seed, recipe)
    images.flags.writeable = masks.flags.writeable = False
    return images, masks


def _render(split: Split, indices: NDArray[np.int64], seed: int, recipe: ProceduralRecipe) -> tuple[Bytes, Bytes]:
    """Make images [n, SIDE, SIDE, 3] and masks [n, SIDE, SIDE] at these indices of a split."""
    noise_draws = [(cells + 1) ** 2 * 3 for cells, _ in _NOISE]
    # The discs come last: more or fewer of them leave all other numbers as they are.
    ends = np.cumsum([_OBJECT_DRAWS, *noise_draws])
    draws = _uniform(split, indices, seed, int(ends[-1]) + recipe.discs * _DISC_DRAWS)
    object_draws, *noises, disc_draws = np.split(draws, ends)

    canvas = np.full((SIDE, SIDE, 3, len(indices)), 0.5)
    for noise, (cells, amplitude) in zip(noises, _NOISE, strict=True):
        grid = (noise * 2 - 1).reshape(cells + 1, cells + 1, 3, len(indices))
        canvas += recipe.clutter * amplitude * _upsample(grid)
    for disc in disc_draws.reshape(recipe.discs, _DISC_DRAWS, len(indices)):
        _paint_disc(canvas, disc)
    masks = _paint_object(canvas, object_draws, (indices % NUM_CLASSES).astype(np.float64), recipe)
    images = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return np.moveaxis(images, -1, 0), np.moveaxis(masks, -1, 0).astype(np.uint8)


def _uniform(split: Split, indices: NDArray[np.int64], seed: int, count: int) -> Array:
    """Draw numbers in [0, 1), [count, n]; a column depends on its own index only and begins alike for every count."""
    part = list(SPLIT_SIZES).index(split)
    raw = [PCG64(SeedSequence((seed, part, int(i)))).random_raw(count) for i in indices]
    return (np.stack(raw, axis=1) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _pixels() -> tuple[Array, Array]:
    """Give the pixels' centres x [1, SIDE, 1] and y [SIDE, 1, 1]."""
    centres = np.arange(SIDE, dtype=np.float64) + 0.5
    return centres[None, :, None], centres[:, None, None]


def _upsample(grid: Array) -> Array:
    """Interpolate [cells + 1, cells + 1, 3, n] smoothly to [SIDE, SIDE, 3, n], one axis after the other."""
    cells = grid.shape[0] - 1
    position = (np.arange(SIDE) + 0.5) * (cells / SIDE)
    first = position.astype(np.int64)
    weight = position - first
    weight = (weight * weight * (3 - 2 * weight))[:, None, None]
    rows = grid[first] + np.diff(grid, axis=0)[first] * weight[..., None]
    image: Array = rows[:, first] + np.diff(rows, axis=1)[:, first] * weight
    return image


def _paint_disc(canvas: Array, draws: Array) -> None:
    """Paint a plain disc of any colour, anywhere, in each image."""
    x, y = _pixels()
    centre_x, centre_y, size, hue, saturation, value = draws
    radius = SIDE * (0.05 + 0.07 * size)
    inside = (x - centre_x * SIDE) ** 2 + (y - centre_y * SIDE) ** 2 <= radius**2
    colour = _hue_to_rgb(hue, 0.4 + 0.5 * saturation) * (0.4 + 0.55 * value)
    np.copyto(canvas, colour, where=inside[:, :, None])


def _paint_object(canvas: Array, draws: Array, label: Array, recipe: ProceduralRecipe) -> NDArray[np.bool_]:
    """Paint one object in each image, wholly inside it, and give its mask [SIDE, SIDE, n]."""
    u = iter(draws)
    major = SIDE * (0.18 + 0.16 * next(u))
    minor = major * (0.45 + 0.35 * next(u))
    radius = 0.42 * minor + 3
    angle = 2 * np.pi * next(u)
    cos, sin = np.cos(angle), np.sin(angle)

    # Offsets are from the body's centre, which lies wherever body and head together stay inside the image.
    head_x, head_y = major * cos, major * sin
    half_width = np.sqrt((major * cos) ** 2 + (minor * sin) ** 2)
    half_height = np.sqrt((major * sin) ** 2 + (minor * cos) ** 2)
    left, right = np.minimum(-half_width, head_x - radius), np.maximum(half_width, head_x + radius)
    top, bottom = np.minimum(-half_height, head_y - radius), np.maximum(half_height, head_y + radius)
    x, y = _pixels()
    x = x - (next(u) * (SIDE - right + left) - left)
    y = y - (next(u) * (SIDE - bottom + top) - top)

    body = ((x * cos + y * sin) / major) ** 2 + ((y * cos - x * sin) / minor) ** 2 <= 1
    gauss = np.sqrt(-2 * np.log(1 - next(u))) * np.cos(2 * np.pi * next(u))  # Box and Muller
    hue = (label / NUM_CLASSES + recipe.hue_noise * gauss) % 1
    colour = _hue_to_rgb(hue, 0.5 + 0.3 * next(u)) * (0.55 + 0.2 * next(u))
    texture = 1 + 0.25 * _wave(x, y, np.pi * next(u), 4 + 6 * next(u), next(u))
    np.copyto(canvas, colour * texture[:, :, None], where=body[:, :, None])

    # The class is the stripes' angle; classes whose angles are next to each other differ in frequency too.
    x, y = x - head_x, y - head_y
    head = x * x + y * y <= radius**2
    stripes = np.sign(_wave(x, y, np.pi * label / NUM_CLASSES, 4 + 2 * (label % 2), next(u)))
    np.copyto(canvas, (0.5 + 0.5 * recipe.head_contrast * stripes)[:, :, None], where=head[:, :, None])
    mask: NDArray[np.bool_] = body | head
    return mask


def _wave(x: Array, y: Array, angle: Array, period: Array, phase: Array) -> Array:
    """Make a sine wave in [-1, 1] that runs along `angle`, its period in pixels, its phase in turns."""
    wave: Array = np.sin(2 * np.pi * (x * (np.cos(angle) / period) + y * (np.sin(angle) / period) + phase))
    return wave


def _hue_to_rgb(hue: Array, saturation: Array) -> Array:
    """Make RGB [3, n] of full value from hue and saturation in [0, 1] (the usual HSV hexcone)."""
    sector = (hue * 6 + np.array([[5.0], [3.0], [1.0]])) % 6
    rgb: Array = 1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return rgb
