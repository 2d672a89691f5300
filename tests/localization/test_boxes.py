"""The protocol's boxes in an image's own pixels."""

from __future__ import annotations

import numpy as np

from iir_fast.evaluation import largest_box
from iir_fast.localization import scale_box


def test_scale_box_to_an_image_of_another_aspect():
    assert scale_box((56, 0, 112, 112), (448, 100)) == (112, 0, 224, 50)
    # The protocol clips at 223: the box ends where the image ends.
    assert scale_box((0, 10, 223, 223), (64, 64)) == (0, 3, 64, 64)
    assert scale_box((0, 10, 223, 223), (896, 1792)) == (0, 80, 896, 1792)
    assert scale_box((0, 10, 222, 222), (896, 1792)) == (0, 80, 888, 1776)


def test_a_block_of_score_is_found_where_it_is():
    scoremap = np.zeros((224, 224))
    scoremap[28:84, 112:196] = 1.0
    assert scale_box(largest_box(scoremap, 0.5), (64, 128)) == (32, 16, 56, 48)
