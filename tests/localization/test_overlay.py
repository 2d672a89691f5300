"""Pictures of maps and boxes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from iir_fast.localization import overlay, save_picture


def test_overlay_draws_the_box_and_colours_the_map():
    image = Image.new("RGB", (40, 20), "black")
    scoremap = np.zeros((224, 224))
    scoremap[:, 112:] = 1.0
    shown = np.asarray(overlay(image, scoremap, [((2, 3, 12, 13), (255, 60, 60))]))
    assert shown.shape == (20, 40, 3)
    assert tuple(shown[3, 2]) == tuple(shown[12, 11]) == (255, 60, 60)
    assert shown[10, 35, 0] > shown[10, 35, 2]
    assert shown[17, 17, 2] > shown[17, 17, 0]
    assert np.array_equal(np.asarray(image), np.zeros((20, 40, 3)))


def test_a_picture_replaces_a_link_of_its_name(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "a.png").symlink_to(tmp_path / "secret")
    save_picture(tmp_path / "a.png", Image.new("RGB", (4, 3), "red"))
    assert (tmp_path / "secret").read_text() == "mine"
    with Image.open(tmp_path / "a.png") as saved:
        assert (saved.size, saved.getpixel((0, 0))) == ((4, 3), (255, 0, 0))
