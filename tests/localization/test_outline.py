"""Outlines, masks and several objects: they fit the boxes, and the first one's is the protocol's."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from iir_fast.evaluation import largest_box, resize_scoremap
from iir_fast.localization import FoundObject, ImageResult, scale_box
from iir_fast.localization.outline import fill, find_outlines

SIZE = (448, 672)


def scoremap(*blocks: tuple[int, int, int, int]) -> np.ndarray:
    """A map of zeros with blocks x0, y0, x1, y1 of ones, x1 and y1 exclusive."""
    found = np.zeros((224, 224))
    for x0, y0, x1, y1 in blocks:
        found[y0:y1, x0:x1] = 1
    return found


def test_the_first_outline_has_the_protocols_box():
    torch.manual_seed(0)
    for side in (3, 7, 14):
        for map in resize_scoremap(torch.rand(4, side, side)):
            for threshold in (0.0, 0.6, 0.95):
                first, *others = find_outlines(map, threshold, SIZE, most=9)
                assert first.box == scale_box(largest_box(map, threshold), SIZE)
                assert find_outlines(map, threshold, SIZE)[0].box == first.box
                for outline in (first, *others):
                    low, high = outline.polygon.min(axis=0), outline.polygon.max(axis=0)
                    assert (*low, *high) == pytest.approx(outline.box)
                    mask = fill(outline, SIZE)
                    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                    np.testing.assert_allclose(edges, outline.box, atol=1)


def test_objects_come_by_area_down_to_a_tenth_of_the_largest():
    map = scoremap((10, 10, 30, 30), (100, 100, 200, 200), (50, 10, 90, 50), (120, 120, 150, 150))
    map[110:190, 110:190] = 0  # a hole with something in it, which is part of the object around it
    map[140:160, 140:160] = 1
    boxes = [outline.box for outline in find_outlines(map, 0.5, (224, 224), most=5)]
    assert boxes == [(100, 100, 200, 200), (50, 10, 90, 50)]
    assert [outline.box for outline in find_outlines(map, 0.5, (224, 224))] == boxes[:1]


def test_a_block_is_filled_whole_and_a_constant_map_not_at_all():
    [outline] = find_outlines(scoremap((28, 56, 84, 112)), 0.5, SIZE)
    assert outline.box == (56, 168, 168, 336)
    mask = fill(outline, SIZE)
    assert mask[168:336, 56:168].all()
    assert mask.sum() == 112 * 168
    [nothing] = find_outlines(scoremap(), 0.5, SIZE)
    assert (nothing.box, len(nothing.polygon), fill(nothing, SIZE).any()) == ((0, 0, 0, 0), 0, False)
    [line] = find_outlines(scoremap((28, 56, 84, 57)), 0.5, (224, 224))
    assert line.box == (28, 56, 84, 57)
    assert fill(line, (224, 224)).sum() == 56


def test_a_disc_is_filled_as_it_is_seen():
    disc = cv2.circle(np.zeros((224, 224)), (112, 112), 60, 1.0, -1)
    [outline] = find_outlines(disc, 0.5, SIZE)
    expected = cv2.resize(disc, SIZE, interpolation=cv2.INTER_NEAREST) > 0.5
    mask = fill(outline, SIZE).astype(bool)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.98


def test_a_predictor_finds_several_objects_of_a_class(predictor, pictures):
    one = list(predictor.localize(pictures, threshold=0.9))
    many = list(predictor.localize(pictures, threshold=0.9, max_objects=4))
    assert [each.objects[0] for each in many] == [each.objects[0] for each in one]
    assert max(len(each.objects) for each in many) > 1
    for image in many:
        assert len({each.class_index for each in image.objects}) == 1
        assert image.masks.shape == (len(image.objects), *image.size[::-1])
        assert image.masks.any(axis=(1, 2)).all()
    assert [len(each.objects) for each in predictor.localize(pictures, threshold=0.9, top_k=3)] == [3] * 7
    with pytest.raises(ValueError, match="max_objects is 0; accepted is 1 or more"):
        predictor.localize(pictures, max_objects=0)


def test_what_a_network_makes_nan_of_is_named(predictor, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    with torch.no_grad():
        predictor.network.backbone.net[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"the network makes NaN of the image .*a\.png: its weights are broken"):
        list(predictor.localize(tmp_path / "a.png"))


def test_supervision_gets_boxes_masks_and_classes(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=dict))
        objects = (
            FoundObject("dog", 1, 0.75, (4, 5, 36, 29), torch.zeros(2, 2)),
            FoundObject("cat", 0, 0.25, (0, 0, 0, 0), torch.zeros(2, 2)),
        )
        image = ImageResult(0, "a.jpg", (40, 30), objects)
        given = image.to_supervision()
        assert given["xyxy"].tolist() == [[4, 5, 36, 29]]
        assert (given["mask"].dtype, given["mask"].shape, given["mask"].sum()) == (bool, (1, 30, 40), 32 * 24)
        assert (given["confidence"].tolist(), given["class_id"].tolist()) == ([0.75], [1])
        assert given["data"]["class_name"].tolist() == ["dog"]
        none = replace(image, objects=()).to_supervision()
        assert (none["xyxy"].shape, none["mask"].shape, len(none["confidence"])) == ((0, 4), (0, 30, 40), 0)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "iir-fast\[supervision\]"'):
        image.to_supervision()
