"""From image files to boxes: what a trained localizer is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iir_fast.data import image_transform, read_image
from iir_fast.evaluation import PROTOCOL_SIZE, largest_box, resize_scoremap
from iir_fast.models import IIRLocalizer, LocalizerSpec, MapKind

DEFAULT_THRESHOLD = 0.3
TRUE_COLOUR, PREDICTED_COLOUR = (40, 220, 90), (255, 60, 60)


@dataclass(frozen=True)
class Box:
    """An object that was found.

    Attributes:
        label: name of its class.
        probability: of that class, mean of both classifiers' softmax.
        box: x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive.
    """

    label: str
    probability: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class LocalizedImage:
    """One image with what was found in it.

    Attributes:
        path: as it was given.
        size: width and height in pixels.
        found: the object of the predicted class.
        scoremap: float64 [224,224] in [0,1].
        image: RGB.
    """

    path: str
    size: tuple[int, int]
    found: Box
    scoremap: NDArray[np.float64]
    image: Image.Image

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        return {"path": self.path, "width": self.size[0], "height": self.size[1], **asdict(self.found)}


def localize_images(
    model: IIRLocalizer,
    spec: LocalizerSpec,
    paths: Iterable[str | Path],
    kind: MapKind = "evidence",
    threshold: float = DEFAULT_THRESHOLD,
) -> Iterator[LocalizedImage]:
    """Find the object of the predicted class in each image: box of the largest contour, as the WSOL protocol has it.

    Args:
        model: in eval mode (`load_localizer` gives it).
        spec: of that model.
        paths: image files.
        kind: which localization map.
        threshold: tau in [0,1), share of the map's maximum above which a pixel belongs to the object.

    Raises:
        BrokenImageError: an image cannot be read; the message names it.
    """
    transform = image_transform(spec.image_size, model.backbone.mean, model.backbone.std)
    device = model.head.weight.device
    for path in paths:
        image = read_image(Path(path))
        found = model.localize(transform(image).unsqueeze(0).to(device), kinds=(kind,))
        scoremap = resize_scoremap(found.maps[kind].cpu())[0]
        label = int(found.labels[0])
        probability = float(torch.softmax(found.logits[0].float(), dim=0)[label])
        box = scale_box(largest_box(scoremap, threshold), image.size)
        yield LocalizedImage(str(path), image.size, Box(spec.classes[label], probability, box), scoremap, image)


def scale_box(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the protocol's 224x224 score map in pixels of an image, x1 and y1 exclusive.

    The protocol clips x1 and y1 at 223, so that is where the image ends.
    """
    edge = PROTOCOL_SIZE - 1
    (width, height), (x0, y0, x1, y1) = size, box
    return (
        round(x0 * width / PROTOCOL_SIZE),
        round(y0 * height / PROTOCOL_SIZE),
        width if x1 >= edge else round(x1 * width / PROTOCOL_SIZE),
        height if y1 >= edge else round(y1 * height / PROTOCOL_SIZE),
    )


def overlay(
    image: Image.Image,
    scoremap: NDArray[np.float64] | None = None,
    boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]] = (),
) -> Image.Image:
    """The image under its score map in colours, with boxes drawn on it.

    Args:
        image: RGB.
        scoremap: [h,w] in [0,1]; None: the image stays as it is.
        boxes: (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) with an RGB colour each.
    """
    shown = image.convert("RGB")
    if scoremap is not None:
        grey = (np.clip(cv2.resize(scoremap, image.size, interpolation=cv2.INTER_LINEAR), 0, 1) * 255).astype(np.uint8)
        heat = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
        shown = Image.blend(shown, Image.fromarray(heat), 0.45)
    draw = ImageDraw.Draw(shown)
    for (x0, y0, x1, y1), colour in boxes:
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=max(1, min(image.size) // 100))
    return shown
