"""From image files to boxes in the images' own pixels, and their overlays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from iir_fast.data import BrokenImageError, ProceduralDataset
from iir_fast.evaluation import largest_box
from iir_fast.localization import localize_images, overlay, scale_box
from iir_fast.models import LocalizerSpec

SPEC = LocalizerSpec("small_cnn", tuple(f"class_{k}" for k in range(10)), 64, hidden=8)


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = SPEC.build().eval()
    model.prototypes.update(torch.rand(10, 2, model.backbone.channels), torch.arange(10))
    return model


def test_scale_box_to_an_image_of_another_aspect():
    assert scale_box((56, 0, 112, 112), (448, 100)) == (112, 0, 224, 50)
    # The protocol clips at 223: the box ends where the image ends.
    assert scale_box((0, 10, 223, 223), (64, 64)) == (0, 3, 64, 64)


def test_a_block_of_score_is_found_where_it_is():
    scoremap = np.zeros((224, 224))
    scoremap[28:84, 112:196] = 1.0
    assert scale_box(largest_box(scoremap, 0.5), (64, 128)) == (32, 16, 56, 48)


def test_files_of_any_size_give_a_class_a_probability_and_a_box_inside(tmp_path):
    dataset, model = ProceduralDataset("test", 2), make_model()
    dataset.image(0).resize((200, 90)).save(tmp_path / "wide.jpg")
    dataset.image(1).convert("L").save(tmp_path / "grey.png")
    paths = [tmp_path / "wide.jpg", tmp_path / "grey.png"]
    wide, grey = localize_images(model, SPEC, paths)
    assert (wide.size, grey.size) == ((200, 90), (64, 64))
    for each in (wide, grey):
        x0, y0, x1, y1 = each.found.box
        assert 0 <= x0 < x1 <= each.size[0]
        assert 0 <= y0 < y1 <= each.size[1]
        assert 0 < each.found.probability < 1
    assert wide.to_dict() == {
        "path": str(paths[0]),
        "width": 200,
        "height": 90,
        "label": wide.found.label,
        "probability": wide.found.probability,
        "box": wide.found.box,
    }
    whole = next(localize_images(model, SPEC, paths, threshold=0.0)).found.box
    small = next(localize_images(model, SPEC, paths, threshold=0.95)).found.box
    assert (whole[2] - whole[0]) * (whole[3] - whole[1]) > (small[2] - small[0]) * (small[3] - small[1])


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(BrokenImageError, match=r"broken\.jpg"):
        list(localize_images(make_model(), SPEC, [tmp_path / "broken.jpg"]))


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
