"""Results are lists of one input, and pictures."""

from __future__ import annotations

import io
import re
import sys
from base64 import b64decode
from dataclasses import replace
from types import GeneratorType

import numpy as np
import pytest
import torch
from PIL import Image

from iir_fast.data import BrokenImageError
from iir_fast.evaluation import Metrics
from iir_fast.localization import PREDICTED_COLOUR, FoundObject, ImageResult, Results

MAP = torch.zeros(4, 4)
MAP[:2] = 1


def result(**changes: object) -> ImageResult:
    """Two cats and a dog in a grey image of 400 x 300."""
    cats = [FoundObject("cat", 1, 0.75, box, MAP) for box in ((40, 60, 200, 240), (300, 100, 380, 200))]
    objects = (*cats, FoundObject("dog", 0, 0.25, (0, 0, 400, 300), MAP))
    given = Image.new("RGB", (400, 300), (128, 128, 128))
    return replace(ImageResult(3, None, (400, 300), objects, given), **changes)


def is_red(picture: Image.Image, x: int, y: int) -> bool:
    return picture.getpixel((x, y)) == PREDICTED_COLOUR


def test_one_input_gives_a_list_and_several_an_iterator(predictor, pictures, tmp_path):
    for i in range(3):
        pictures[i].save(tmp_path / f"{i}.png")
    for one, count in ((str(tmp_path / "0.png"), 1), (tmp_path, 3), (pictures[0], 1), (np.asarray(pictures[0]), 1)):
        found = predictor.localize(one)
        assert type(found) is Results
        assert len(found) == count
    assert found[0].objects == predictor.localize(tmp_path / "0.png")[0].objects
    several = predictor.localize([tmp_path, pictures[0]])
    assert type(several) is GeneratorType
    *_, of_picture = list(several)
    assert of_picture.index == 3
    assert np.array_equal(np.asarray(of_picture.image), np.asarray(pictures[0]))


def test_all_boxes_of_a_class_are_drawn_with_its_name_and_probability():
    found = result()
    picture = found.draw()
    assert picture.size == (400, 300)
    for x, y in ((40, 150), (199, 150), (300, 150), (120, 239)):
        assert is_red(picture, x, y)
    assert not is_red(found.draw(1), 40, 150)
    assert is_red(found.draw(1), 0, 150)
    # Above each box is a plate, and something is written on it.
    plate = np.asarray(picture)[46:58, 42:90]
    assert (plate == PREDICTED_COLOUR).all(axis=-1).any()
    assert (plate > 200).all(axis=-1).any()
    assert np.array_equal(np.asarray(found.image), np.full((300, 400, 3), 128))  # the image is left as it was
    for rank in (-1, 2):
        with pytest.raises(ValueError, match=rf"rank is {rank}; accepted are 0 to 1"):
            found.draw(rank)


def test_size_and_opacity():
    found = result()
    small = found.draw(size=100)
    assert small.size == (100, 75)
    assert is_red(small, 10, 40)
    assert found.draw(size=4000).size == (400, 300)
    plain, strong = found.draw(opacity=0), found.draw(opacity=1)
    assert plain.getpixel((120, 280)) == (128, 128, 128)
    reddish, *others = strong.getpixel((250, 20))  # near the map's maximum
    assert (reddish > 120, others) == (True, [0, 0])
    for changes, words in (({"opacity": 1.5}, "opacity is 1.5"), ({"size": 0}, "size is 0")):
        with pytest.raises(ValueError, match=words):
            found.draw(**changes)


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_a_picture_is_saved_in_the_format_of_its_suffix(form, tmp_path):
    result().save(tmp_path / f"cats.{form}", size=200)
    with Image.open(tmp_path / f"cats.{form}") as saved:
        assert (saved.format, saved.size) == ({"jpg": "JPEG"}.get(form, form.upper()), (200, 150))
    with pytest.raises(ValueError, match=r"cats\.tga; accepted are names that end in \.png, \.jpg, \.webp"):
        result().save(tmp_path / "cats.tga")


def test_a_notebook_shows_pictures(predictor, pictures, tmp_path):
    shown = Image.open(io.BytesIO(result()._repr_png_()))
    assert shown.size == (400, 300)
    pictures[0].save(tmp_path / "<b>.png")
    html = predictor.localize(tmp_path)._repr_html_()
    [encoded] = re.findall(r'base64,([\w+/=]+)"', html)
    assert Image.open(io.BytesIO(b64decode(encoded))).size == pictures[0].size
    assert "&lt;b&gt;.png: " in html
    many = Results([result()] * 15)._repr_html_()
    assert (many.count("<img"), many.count("and 3 more")) == (12, 1)


def test_plot_draws_on_axes_of_matplotlib(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    axes = result(path="photos/cats.jpg").plot()
    assert axes.get_title() == "cats.jpg"
    assert np.array_equal(axes.images[0].get_array(), np.asarray(result().draw()))
    assert result().plot(axes, 1) is axes
    assert np.array_equal(axes.images[1].get_array(), np.asarray(result().draw(1)))
    matplotlib.pyplot.close("all")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="plot needs matplotlib: pip install matplotlib"):
        result().plot()


def test_the_image_of_a_file_is_read_when_it_is_drawn(predictor, pictures, tmp_path):
    pictures[2].save(tmp_path / "a.png")
    [found] = predictor.localize(tmp_path / "a.png")
    assert found.given is None
    assert np.array_equal(np.asarray(found.image), np.asarray(pictures[2]))
    (tmp_path / "a.png").unlink()
    with pytest.raises(BrokenImageError, match=r"a\.png"):
        found.draw()


def test_a_model_and_its_metrics_are_a_line(predictor):
    assert repr(predictor) == "Predictor(small_cnn, 3 classes, maps: both, evidence, cam)"
    metrics = Metrics("test", 12, 0.01, max_box_acc_v2=45.25, top1_accuracy=90.0)
    assert repr(metrics) == "Metrics(test, 12 images: max_box_acc_v2 45.2, top1_accuracy 90.0)"
