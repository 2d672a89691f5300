"""From the protocol's boxes to those of an image."""

from __future__ import annotations

from collections.abc import Sequence

from iir_fast.evaluation import PROTOCOL_SIZE


def scale_box(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the protocol's 224x224 score map in pixels of an image, x1 and y1 exclusive.

    The protocol clips x1 and y1 at 223, so that is where the image ends.

    Args:
        box: x0, y0, x1, y1, as `iir_fast.evaluation.largest_box` finds it.
        size: width and height of the image in pixels.
    """
    edge = PROTOCOL_SIZE - 1
    (width, height), (x0, y0, x1, y1) = size, box
    return (
        round(x0 * width / PROTOCOL_SIZE),
        round(y0 * height / PROTOCOL_SIZE),
        width if x1 >= edge else round(x1 * width / PROTOCOL_SIZE),
        height if y1 >= edge else round(y1 * height / PROTOCOL_SIZE),
    )
