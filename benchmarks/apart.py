"""Data that no default was chosen on: ``python -m benchmarks.apart FOLDER [SEED]`` writes images, boxes and labels.

Its look is another than that of `iir_fast.data.procedural`: glyphs, polygons and blobs of any hue, whose class is their
shape; 0.1 to 0.7 of the image's side, anywhere in it, one in three partly hidden, among clutter in the same colours.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CLASSES = ("letter R", "letter S", "star", "arrow", "blob", "ring")
SIDE = 192
TRAIN, TEST = 100, 40
"""Images per class."""
Colour = tuple[int, int, int]


def _colour(random: np.random.Generator) -> Colour:
    red, green, blue = random.integers(20, 236, 3).tolist()
    return red, green, blue


def _noise(random: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Smooth noise [SIDE,SIDE] in [0,1]."""
    coarse = Image.fromarray(random.integers(0, 256, (cells, cells), np.uint8))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64) / 255


def _textured(random: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Two colours that run into each other [SIDE,SIDE,3]."""
    share = _noise(random, cells)[..., None]
    return share * np.array(_colour(random)) + (1 - share) * np.array(_colour(random))


def _shape(name: str, random: np.random.Generator) -> Image.Image:
    """Draw a shape in white on black, three times as large as the image, and turn it a little."""
    side = 3 * SIDE
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    middle = side / 2
    if name.startswith("letter"):
        draw.text((middle, middle), name[-1], 255, ImageFont.load_default(side * 0.9), anchor="mm", stroke_width=12)
    elif name == "star":
        spikes = int(random.integers(5, 8))
        angles = np.arange(2 * spikes) * np.pi / spikes
        radii = np.where(np.arange(2 * spikes) % 2, 0.18, 0.42) * side
        draw.polygon(
            [(middle + r * np.sin(a), middle - r * np.cos(a)) for r, a in zip(radii, angles, strict=True)], 255
        )
    elif name == "arrow":
        points = [(0.1, 0.4), (0.55, 0.4), (0.55, 0.2), (0.9, 0.5), (0.55, 0.8), (0.55, 0.6), (0.1, 0.6)]
        draw.polygon([(x * side, y * side) for x, y in points], 255)
    elif name == "blob":
        for x, y, r in random.uniform((0.35, 0.35, 0.12), (0.65, 0.65, 0.22), (5, 3)) * side:
            draw.ellipse((x - r, y - r, x + r, y + r), 255)
    else:
        inner = random.uniform(0.18, 0.28) * side
        draw.ellipse((0.1 * side, 0.1 * side, 0.9 * side, 0.9 * side), 255)
        draw.ellipse((middle - inner, middle - inner, middle + inner, middle + inner), 0)
    return picture.rotate(random.uniform(-30, 30), Image.Resampling.BILINEAR)


def _place(name: str, random: np.random.Generator) -> NDArray[np.float64]:
    """Where the object is seen [SIDE,SIDE], in [0,1]."""
    shape = _shape(name, random)
    shape = shape.crop(shape.getbbox())
    longer = random.uniform(0.1, 0.7) * SIDE
    width, height = (max(4, round(longer * each / max(shape.size))) for each in shape.size)
    x, y = (int(random.integers(0, SIDE - each + 1)) for each in (width, height))
    seen = np.zeros((SIDE, SIDE))
    seen[y : y + height, x : x + width] = np.asarray(shape.resize((width, height))) / 255
    if random.random() < 1 / 3:  # something stands in front of up to two fifths of it
        hidden = random.uniform(0.15, 0.4)
        if random.random() < 0.5:
            seen[:, : x + round(hidden * width)] = 0
        else:
            seen[: y + round(hidden * height)] = 0
    return seen


def _image(name: str, random: np.random.Generator) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Make an image and its box."""
    background = _textured(random, int(random.integers(3, 12)))
    canvas = Image.fromarray(background.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for x0, y0, dx, dy in random.uniform((0, 0, -80, -80), (SIDE, SIDE, 80, 80), (int(random.integers(4, 14)), 4)):
        draw.line((x0, y0, x0 + dx, y0 + dy), _colour(random), int(random.integers(1, 7)))
    canvas = canvas.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.5)))
    seen = _place(name, random)
    rows, columns = (np.flatnonzero(seen.max(axis) > 0.5) for axis in (1, 0))
    mixed = seen[..., None] * _textured(random, int(random.integers(2, 20))) + (1 - seen[..., None]) * np.asarray(
        canvas
    )
    mixed += random.normal(0, random.uniform(0, 8), mixed.shape)
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8)), box


def write(folder: Path, seed: int = 0) -> None:
    """Write both splits, as `--data FOLDER` reads them."""
    for number, (split, count) in enumerate((("train", TRAIN), ("test", TEST))):
        random = np.random.default_rng((seed, number))
        (folder / split).mkdir(parents=True)
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "label", "x0", "y0", "x1", "y1"))
            for i in range(count):
                for name in CLASSES:
                    image, box = _image(name, random)
                    path = f"{split}/{name.replace(' ', '_')}_{i:03d}.png"
                    image.save(folder / path)
                    rows.writerow((path, name, *box))


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
