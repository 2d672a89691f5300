"""Predictor: images of any map, one by one or in batches, and the boxes of one class or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from iir_fast import DualCAMHead
from iir_fast.data import BrokenImageError, image_transform
from iir_fast.evaluation import FixedThreshold, fit_image, largest_box, own_threshold, refine, resize_scoremap
from iir_fast.localization import Predictor, export_network, scale_box
from iir_fast.models import ClassifierSpec, Localizer

TIGHT = 0.75
"""A threshold that leaves something of an image out, of noise seen with random weights."""


def test_a_file_a_picture_and_an_array_give_the_same_box_in_their_own_pixels(predictor, pictures, tmp_path):
    picture = pictures[0].resize((200, 90))
    picture.save(tmp_path / "wide.png")
    grey = picture.convert("L")
    [of_file] = predictor.localize(tmp_path / "wide.png", threshold=TIGHT, refinement="none")
    of_picture, of_array, of_grey, of_grey_array = predictor.localize(
        [picture, np.asarray(picture), grey, np.asarray(grey)], threshold=TIGHT, refinement="none", batch_size=1
    )
    assert (of_file.path, of_picture.path) == (str(tmp_path / "wide.png"), None)
    assert of_file.objects == of_picture.objects == of_array.objects != of_grey.objects
    assert of_grey.objects == of_grey_array.objects
    assert [each.index for each in (of_picture, of_array, of_grey)] == [0, 1, 2]
    assert of_file.size == (200, 90)
    (found,) = of_file.objects
    x0, y0, x1, y1 = found.box
    assert 0 <= x0 < x1 <= 200
    assert 0 <= y0 < y1 <= 90
    assert (x1 - x0) * (y1 - y0) < 200 * 90
    assert found.label == predictor.spec.classes[found.class_index]
    assert 1 / 3 < found.probability < 1
    assert (found.map.shape, found.scoremap.shape) == ((8, 8), (224, 224))


def test_batches_of_any_size_give_the_same_boxes(predictor, pictures):
    alone, threes, together = (
        list(predictor.localize(pictures, threshold=TIGHT, refinement="none", top_k=2, batch_size=size))
        for size in (1, 3, 32)
    )
    assert all(each.objects[0].box != (0, 0, *each.size) for each in alone)
    for other in (threes, together):
        assert [(each.index, each.size) for each in other] == [(each.index, each.size) for each in alone]
        for first, second in zip(alone, other, strict=True):
            assert [each.box for each in first.objects] == [each.box for each in second.objects]
            assert [each.label for each in first.objects] == [each.label for each in second.objects]
            assert first.objects[0].probability == pytest.approx(second.objects[0].probability, rel=1e-5)


@pytest.mark.parametrize("erase", [None, 0.8])
@pytest.mark.parametrize("map", ["both", "evidence", "cam"])
def test_every_class_has_the_box_of_its_own_map_the_most_probable_first(make_predictor, pictures, map, erase):
    predictor = make_predictor(erase=erase)
    network = predictor.network
    transform = image_transform(32, network.backbone.mean, network.backbone.std)
    for picture, image in zip(
        pictures, predictor.localize(pictures, map, TIGHT, refinement="none", top_k=3), strict=True
    ):
        inputs = transform(picture)[None]
        best = network.localize(inputs)
        assert image.objects[0].class_index == int(best.labels)
        assert sorted(each.class_index for each in image.objects) == [0, 1, 2]
        probabilities = [each.probability for each in image.objects]
        assert probabilities == sorted(probabilities, reverse=True)
        expected = best.logits[0].double().softmax(0)[[each.class_index for each in image.objects]]
        assert probabilities == pytest.approx(expected.tolist(), rel=1e-5)
        for each in image.objects:
            maps = network.localize(inputs, torch.tensor([each.class_index]), (map,)).maps[map]
            scoremap = resize_scoremap(maps)[0]
            np.testing.assert_allclose(each.scoremap, scoremap, atol=1e-4)
            assert each.box == scale_box(largest_box(each.scoremap, TIGHT), picture.size)


def test_of_classes_as_probable_the_networks_own_choice_is_first_and_none_is_there_twice(
    predictor, pictures, monkeypatch
):
    torch.nn.init.zeros_(predictor.network.head.weight)
    torch.nn.init.zeros_(predictor.network.head.bias)
    # Its choice is made of other sums than the logits are, and may be another where these are equal.
    monkeypatch.setattr(DualCAMHead, "predict", lambda self, maps, classifiers=2: torch.full((len(maps[0]),), 2))
    for image in predictor.localize(pictures, top_k=3):
        assert [each.class_index for each in image.objects] == [2, 0, 1]


def test_the_threshold_is_the_models_own_unless_another_is_asked_for(predictor, pictures):
    def boxes(*arguments: object) -> list[tuple[int, ...]]:
        return [image.objects[0].box for image in evaluated.localize(pictures, *arguments, refinement="none")]

    evaluated = replace(predictor, thresholds={"cam": FixedThreshold(0.7, "val")})
    assert evaluated.threshold("cam", "none") == FixedThreshold(0.7, "val")
    assert (
        evaluated.threshold("both", "none")
        is evaluated.threshold("cam", "guided")
        is evaluated.threshold("cam")
        is None
    )
    assert boxes("cam") == boxes("cam", 0.7) != boxes("cam", 0.3)
    for image, picture in zip(evaluated.localize(pictures, refinement="none"), pictures, strict=True):
        scoremap = image.objects[0].scoremap
        assert image.objects[0].box == scale_box(largest_box(scoremap, own_threshold(scoremap)), picture.size)
    assert boxes() != boxes("both", 0.3)


def test_images_are_read_as_results_are_taken(predictor):
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield np.full((8, 8), taken % 256, np.uint8)

    found = predictor.localize(endless(), batch_size=4)
    for _ in range(40):
        image = next(found)
    assert image.index == 39
    assert taken <= 40 + 4 + 1
    found.close()


def test_what_cannot_be_read_is_named_or_left_out(predictor, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    images = [
        pictures[0],
        tmp_path / "broken.jpg",
        np.zeros((4, 4, 2), np.uint8),
        pictures[1].convert("I"),
        pictures[1],
    ]
    with pytest.raises(BrokenImageError, match=r"broken\.jpg cannot be read: cannot identify"):
        list(predictor.localize(images))
    broken: list[BrokenImageError] = []
    found = list(predictor.localize(images, on_broken=broken.append))
    assert [each.index for each in found] == [0, 4]
    assert [str(error).partition("The image ")[2] for error in broken[1:]] == [
        "number 2 cannot be read: it is uint8 [4, 4, 2]; uint8 [H,W] or [H,W,3] is accepted.",
        "number 3 cannot be read: its mode I has more than 8 bits and would be clipped to white",
    ]
    with pytest.raises(BrokenImageError, match=r"number 0 cannot be read: it is a int; a path, a PIL image or a NumPy"):
        list(predictor.localize([7]))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        list(predictor.localize(str(tmp_path / "nowhere")))


def test_numbers_out_of_range_are_refused_before_any_image_is_read(predictor):
    for arguments, message in (
        ({"top_k": 4}, "top_k is 4; accepted are 1 to 3, the number of the model's classes"),
        ({"top_k": 0}, "top_k is 0"),
        ({"batch_size": 0}, "batch_size is 0; accepted is 1 or more"),
        ({"threshold": 1.0}, r"threshold is 1.0; a number in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor.localize("nowhere", **arguments)


def test_a_refined_map_is_cut_at_grabcuts_own_edge(predictor, pictures):
    assert predictor.threshold("both", "grabcut") is None
    refined = list(predictor.localize(pictures))
    plain = list(predictor.localize(pictures, refinement="none"))
    for picture, image, other in zip(pictures, refined, plain, strict=True):
        found = image.objects[0]
        assert torch.equal(found.map, other.objects[0].map), "the map itself stays the network's"
        scoremap = refine(found.scoremap, fit_image(picture.convert("RGB")), "grabcut")
        assert found.box == scale_box(largest_box(scoremap, 0.5), image.size)
    assert [each.objects[0].box for each in refined] != [each.objects[0].box for each in plain]
    with pytest.raises(ValueError, match="refinement is 'crf'; accepted are none, guided, grabcut"):
        predictor.localize(pictures, refinement="crf")


CLASSIFIER = ClassifierSpec("mine", ("cat", "dog", "cow"), image_size=32, mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))


@pytest.fixture
def classifier() -> Predictor:
    """A predictor of a classifier as it is: noise in place of weights, linear in the mean of its maps."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, stride=4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return Predictor(Localizer(nn.Sequential(*layers).eval(), "1"), CLASSIFIER)


@pytest.mark.parametrize("refinement", ["none", "guided"])
def test_a_classifier_as_it_is_gives_the_boxes_of_its_own_maps(classifier, pictures, refinement):
    localizer = classifier.network
    transform = image_transform(32, CLASSIFIER.mean, CLASSIFIER.std)
    found = classifier.localize(pictures, threshold=TIGHT, refinement=refinement, top_k=3, batch_size=4)
    for picture, image in zip(pictures, found, strict=True):
        inputs = transform(picture)[None]
        logits = localizer.model(inputs)[0].detach()
        assert [each.class_index for each in image.objects] == logits.argsort(descending=True).tolist()
        assert [each.label for each in image.objects] == [
            CLASSIFIER.classes[i] for i in logits.argsort(descending=True)
        ]
        for each in image.objects:
            assert each.probability == pytest.approx(float(logits.double().softmax(0)[each.class_index]), rel=1e-5)
            torch.testing.assert_close(each.map, localizer(inputs, torch.tensor([each.class_index])).maps["cam"][0])
            scoremap = refine(resize_scoremap(each.map), fit_image(picture), refinement)
            assert each.box == scale_box(largest_box(scoremap, TIGHT), picture.size)


def test_a_classifier_has_one_map_and_no_graph(classifier, predictor, pictures, tmp_path):
    assert classifier.threshold(None, "none") is None
    boxes = [[image.objects[0].box for image in classifier.localize(pictures, map)] for map in (None, "cam")]
    assert boxes[0] == boxes[1]
    with pytest.raises(ValueError, match="map is 'both'; accepted is 'cam', the one that a plain classifier has"):
        list(classifier.localize(pictures, "both"))
    with pytest.raises(ValueError, match="predictor holds a Localizer, whose maps need a gradient"):
        export_network(classifier, tmp_path / "mine.pt2")
    for network, spec in ((classifier.network, predictor.spec), (predictor.network, classifier.spec)):
        with pytest.raises(TypeError, match=r"spec is a .*; accepted are a ClassifierSpec of a Localizer, and a Net"):
            Predictor(network, spec)


def test_a_class_without_an_object_has_a_probability_and_no_box(predictor, pictures):
    nothing, *others = predictor.spec.classes
    plain = list(predictor.localize(pictures, top_k=3, threshold=TIGHT))
    for before, after in zip(
        plain, predictor.localize(pictures, top_k=3, threshold=TIGHT, without_object=[nothing]), strict=True
    ):
        assert [each.probability for each in after.objects] == [each.probability for each in before.objects]
        for one, other in zip(before.objects, after.objects, strict=True):
            assert not one.is_empty
            assert other.box == ((0, 0, 0, 0) if one.label == nothing else one.box)
    with pytest.raises(ValueError, match=r"without_object names norml; the model's classes are .*, "):
        predictor.localize(pictures, without_object=["norml", others[0]])
