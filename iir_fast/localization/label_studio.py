"""Boxes as predictions for Label Studio."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from iir_fast.localization.results import FoundObject, ImageResult

FROM, TO = "label", "image"
"""Names of the control and the image in the labelling configuration that the predictions are for."""


def label_studio_task(image: ImageResult, model: str) -> dict[str, Any]:
    """Make a task with one prediction, by that model_version, of what was found in an image.

    It is for a labelling configuration that states the classes, with `<Image name="image" value="$image"/>` and
    `<RectangleLabels name="label" toName="image">`, and a server whose LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is /.
    Boxes are in percent of the image; the score of a task is that of its most probable box.
    """
    shown = [each for each in image.objects if not each.is_empty]
    regions = [_region(each, image.size, f"{image.index}-{rank}") for rank, each in enumerate(shown, start=1)]
    score = max((each.probability for each in shown), default=0.0)
    place = quote(os.fsencode(os.path.abspath(image.file).lstrip("/")))
    return {
        "data": {TO: f"/data/local-files/?d={place}"},
        "predictions": [{"model_version": model, "score": score, "result": regions}],
    }


def _region(each: FoundObject, size: tuple[int, int], name: str) -> dict[str, Any]:
    (width, height), (x0, y0, x1, y1) = size, each.box
    across, down = 100 / width, 100 / height
    return {
        "id": name,
        "type": "rectanglelabels",
        "from_name": FROM,
        "to_name": TO,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": each.probability,
        "value": {
            "x": x0 * across,
            "y": y0 * down,
            "width": (x1 - x0) * across,
            "height": (y1 - y0) * down,
            "rotation": 0,
            "rectanglelabels": [each.label],
        },
    }
