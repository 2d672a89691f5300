"""Boxes as a COCO data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from iir_fast.localization.results import ImageResult


def write_coco(
    found: Iterable[ImageResult], out: TextIO, classes: Sequence[str], model: str, *, rle: bool = False
) -> None:
    """Write a COCO data set: images with their sizes, all classes as categories numbered from 1, boxes as annotations.

    A bbox is x, y, width, height in pixels, the segmentation its outline or, with `rle`, its mask, run lengths down the
    columns and uncompressed, the area that of the segmentation, and the score the probability of the class. The data
    set's description is `model`. Small entries of all images are kept until the end; where `found` ends with an error,
    a whole document of what came before is written.
    """
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    try:
        for image in found:
            number, (width, height) = image.index + 1, image.size
            images.append({"id": number, "file_name": image.path, "width": width, "height": height})
            masks = image.masks if rle else None
            for row, each in enumerate(image.objects):
                if each.is_empty:
                    continue
                x0, y0, x1, y1 = each.box
                what = {"id": len(boxes) + 1, "image_id": number, "category_id": each.class_index + 1}
                shape: dict[str, Any] = {"segmentation": [np.round(each.polygon, 2).ravel().tolist()]}
                shape["area"] = round(_area(each.polygon), 2)
                if masks is not None:
                    shape = {"segmentation": _run_lengths(masks[row]), "area": int(masks[row].sum())}
                where = {"bbox": [x0, y0, x1 - x0, y1 - y0], **shape, "iscrowd": 0, "score": each.probability}
                boxes.append({**what, **where})
    finally:
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
        content = {"info": {"description": model}, "images": images, "annotations": boxes, "categories": categories}
        json.dump(content, out, allow_nan=False)
        out.write("\n")


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _run_lengths(mask: NDArray[np.uint8]) -> dict[str, list[int]]:
    """Count how many pixels in a row are off the object, then on it, and so on, down one column after the other."""
    pixels = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(pixels)) + 1
    begins = [0, 0] if pixels[0] else [0]
    return {"size": list(mask.shape), "counts": np.diff([*begins, *edges, pixels.size]).tolist()}
