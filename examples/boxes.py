"""What the trained head knows beside the class: a box on one image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from iir_fast.data import Transform, read_image
from iir_fast.evaluation import largest_box, own_threshold, resize_scoremap
from iir_fast.localization import PREDICTED_COLOUR, overlay, scale_box


@torch.no_grad()
def save_box(model: nn.Module, transform: Transform, path: str | Path, picture: Path) -> tuple[int, int, int, int]:
    """Draw the object of the predicted class on its image.

    Args:
        model: in eval mode; makes the output of a DualCAMHead of images [1,3,H,W].
        transform: from an RGB image to what the model reads, [3,H,W].
        path: the image.
        picture: file to draw on: the image under the mean of the two normalized CAMs, and the box.

    Returns:
        x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive.
    """
    image = read_image(Path(path))
    device = next(model.parameters()).device
    out = model(transform(image)[None].to(device))
    scoremap = resize_scoremap(out.regulated.maps.mean(dim=1))[0]
    box = scale_box(largest_box(scoremap, own_threshold(scoremap)), image.size)
    overlay(image, scoremap, [(box, PREDICTED_COLOUR)]).save(picture)
    return box
