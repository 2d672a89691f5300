"""What was found in images: classes with their boxes, and how they are looked at."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field, replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iir_fast.data import read_image
from iir_fast.evaluation import resize_scoremap
from iir_fast.localization.outline import Outline, corners, fill
from iir_fast.localization.overlay import OPACITY, PREDICTED_COLOUR, encode, overlay, save_picture, shrink

SHOWN, SHOWN_SIZE = 12, 512
"""Of results in a notebook: how many are shown, and the longest side of a picture in pixels."""


@dataclass(frozen=True)
class FoundObject:
    """The object of one class in one image.

    Attributes:
        label: name of the class.
        class_index: its number, from 0.
        probability: of that class, softmax of `DualCAMHead.class_logits`.
        box: x0, y0, x1, y1 in pixels of the image, of a file upright as its EXIF orientation says, x1 and y1 exclusive;
            all 0 where the map is constant or the class has no object.
        map: float32 [h,w] in [0,1], the class's localization map at the resolution of the features.
        outline: [n,2], the polygon x, y that the box is drawn around, in the same pixels; None: the box itself.
    """

    label: str
    class_index: int
    probability: float
    box: tuple[int, int, int, int]
    map: Tensor = field(repr=False, compare=False)
    outline: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    @property
    def scoremap(self) -> NDArray[np.float64]:
        """float64 [224,224] in [0,1]: the map as the box was cut out of it, unless it was refined first. Made anew each
        time, as it is large."""
        return resize_scoremap(self.map)

    @property
    def polygon(self) -> NDArray[np.float64]:
        """[n,2]: the outline, or the corners of the box where there is none."""
        return corners(self.box) if self.outline is None else self.outline

    @property
    def is_empty(self) -> bool:
        """Whether the box has no area: the map is constant, or the image is tiny."""
        x0, y0, x1, y1 = self.box
        return x0 >= x1 or y0 >= y1


@dataclass(frozen=True)
class ImageResult:
    """One image with what was found in it.

    Attributes:
        index: its place among the images that were given, from 0.
        path: its file; None for an image that came without one.
        size: width and height in pixels.
        objects: of the most probable classes, the most probable first; of each class the largest first.
        given: the image, where it came without a file.
    """

    index: int
    path: str | None
    size: tuple[int, int]
    objects: tuple[FoundObject, ...]
    given: Image.Image | None = field(default=None, repr=False, compare=False)

    @property
    def image(self) -> Image.Image:
        """The image in RGB, upright: as it was given, or read anew from its file.

        Raises:
            BrokenImageError: the file cannot be read any more.
        """
        return self.given or read_image(self.file)

    @property
    def by_class(self) -> tuple[tuple[FoundObject, ...], ...]:
        """The objects of each class that was localized, the most probable first."""
        return tuple(tuple(each) for _, each in groupby(self.objects, lambda found: found.class_index))

    def draw(
        self, rank: int = 0, *, size: int | None = None, opacity: float = OPACITY, image: Image.Image | None = None
    ) -> Image.Image:
        """Draw the objects of one class: the image under the class's map, and boxes with class and probability.

        Args:
            rank: which class, 0 for the most probable of those that were localized.
            size: longest side of the picture in pixels; None, or more than the image has: the image's own.
            opacity: of the map, in [0, 1].
            image: the image in RGB, where it has been read already.

        Raises:
            ValueError: a number is out of its range.
            BrokenImageError: the image's file cannot be read any more.
        """
        if not 0 <= rank < len(self.by_class):
            raise ValueError(f"rank is {rank}; accepted are 0 to {len(self.by_class) - 1}, the classes found here.")
        objects = self.by_class[rank]
        shown = shrink(image or self.image, size)
        scale = np.array([*shown.size, *shown.size]) / [*self.size, *self.size]
        boxes = [((np.array(each.box) * scale).round().astype(int).tolist(), PREDICTED_COLOUR) for each in objects]
        labels = [f"{each.label} {each.probability:.2f}" for each in objects]
        return overlay(shown, objects[0].scoremap, boxes, opacity=opacity, labels=labels)

    def save(self, file: str | Path, rank: int = 0, *, size: int | None = None, opacity: float = OPACITY) -> None:
        """Save what `draw` makes of `rank`, `size` and `opacity` as a `file`, a .png, .jpg or .webp.

        Raises:
            ValueError: `file` ends in something else, or as `draw`.
            OSError: the file could not be written.
        """
        save_picture(Path(file), self.draw(rank, size=size, opacity=opacity))

    def plot(self, axes: Any = None, rank: int = 0, *, opacity: float = OPACITY) -> Any:
        """Show what `draw` makes of `rank` and `opacity` on matplotlib's `axes`, new ones by default, and return them.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: as `draw`.
        """
        try:
            from matplotlib import pyplot
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("plot needs matplotlib: pip install matplotlib") from error
        axes = axes or pyplot.subplots()[1]
        axes.imshow(self.draw(rank, opacity=opacity))
        axes.set_axis_off()
        axes.set_title(self._title)
        return axes

    @property
    def _title(self) -> str:
        return Path(self.path).name if self.path else f"image {self.index}"

    def _repr_png_(self) -> bytes:
        return encode(self.draw(size=SHOWN_SIZE), "png")

    @property
    def file(self) -> Path:
        """Its path; ValueError: the image came without one."""
        if self.path is None:
            raise ValueError(f"image number {self.index} came without a file; images by their paths are accepted.")
        return Path(self.path)

    @property
    def masks(self) -> NDArray[np.uint8]:
        """uint8 [n,height,width], 1 on each object: its outline, filled. Made anew each time, as they are large."""
        filled = [fill(Outline(each.box, each.polygon), self.size) for each in self.objects]
        return np.stack(filled) if filled else np.zeros((0, *self.size[::-1]), np.uint8)

    def to_supervision(self) -> Any:
        """Make `supervision.Detections` of the objects that have an area: boxes, masks, probabilities and classes.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'to_supervision needs supervision: pip install "iir-fast[supervision]"'
            ) from error
        shown = replace(self, objects=tuple(each for each in self.objects if not each.is_empty))
        return Detections(
            xyxy=np.array([each.box for each in shown.objects], np.float32).reshape(-1, 4),
            mask=shown.masks.astype(bool),
            confidence=np.array([each.probability for each in shown.objects], np.float32),
            class_id=np.array([each.class_index for each in shown.objects], np.int64),
            data={"class_name": np.array([each.label for each in shown.objects], str)},
        )


class Results(list[ImageResult]):
    """What was found for one input, a file or all files of a folder; a notebook shows the first ones."""

    def _repr_html_(self) -> str:
        style = "display: inline-block; margin: 4px; text-align: center"
        figures = [
            f'<figure style="{style}"><img alt="" style="max-width: 240px; max-height: 240px" '
            f'src="data:image/jpeg;base64,{b64encode(encode(each.draw(size=SHOWN_SIZE), "jpg")).decode()}">'
            f"<figcaption>{escape(each._title)}: {escape(each.objects[0].label)} {each.objects[0].probability:.2f}"
            "</figcaption></figure>"
            for each in self[:SHOWN]
        ]
        rest = f"<p>and {len(self) - SHOWN:,} more</p>" if len(self) > SHOWN else ""
        return "".join(figures) + rest
