"""Refined score maps: what each refinement computes, whom it helps, and that it does the same every time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from iir_fast.evaluation import fit_image, own_threshold, refine, refined_name
from iir_fast.evaluation.refinement import REFINEMENTS

RADIUS, EPSILON = 16, 1e-3

SIDE = 96


@pytest.fixture(scope="module")
def square() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red square on noisy green, its mask, and a blurred map of it that is off by 6 pixels."""
    random = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[30:66, 24:70] = True
    image = np.where(mask[..., None], (200, 60, 40), (40, 160, 60)) + random.normal(0, 12, (SIDE, SIDE, 3))
    scoremap = cv2.GaussianBlur(np.roll(mask, (6, 6), (0, 1)).astype(np.float64), (0, 0), 7)
    scoremap -= scoremap.min()
    return image.clip(0, 255).astype(np.uint8), mask, scoremap / scoremap.max()


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize(("refinement", "least"), [("guided", 0.85), ("grabcut", 0.94)])
def test_the_map_is_drawn_to_the_objects_edge(square, refinement, least):
    image, mask, scoremap = square
    assert iou(scoremap > 0.5, mask) < 0.75
    refined = refine(scoremap, image, refinement)
    assert (refined.min(), refined.max()) == (0, 1)
    assert iou(refined > 0.5, mask) > least


def test_guided_is_the_windows_regression_on_the_colours(square):
    image, _, scoremap = square
    refined = refine(scoremap, image, "guided")
    width = 2 * RADIUS + 1
    colours = np.pad(image / 255, ((RADIUS,) * 2, (RADIUS,) * 2, (0, 0)), mode="reflect")
    scores = np.pad(scoremap, RADIUS, mode="reflect")
    lines = np.empty((SIDE, SIDE, 4))
    for y in range(SIDE):
        for x in range(SIDE):
            colour = colours[y : y + width, x : x + width].reshape(-1, 3)
            score = scores[y : y + width, x : x + width].ravel()
            centred = colour - colour.mean(axis=0)
            slope = np.linalg.solve(
                centred.T @ centred / width**2 + EPSILON * np.eye(3), centred.T @ (score - score.mean()) / width**2
            )
            lines[y, x] = *slope, score.mean() - slope @ colour.mean(axis=0)
    means = cv2.blur(lines, (width, width))
    expected = (means[..., :3] * image / 255).sum(axis=2) + means[..., 3]
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(refined, expected, atol=1e-9)


def test_grabcut_lifts_the_guided_map_where_it_finds_the_object(square):
    image, mask, scoremap = square
    edge = 0.5 + 0.75 * own_threshold(scoremap) ** 2
    lifted = 2 * np.interp(refine(scoremap, image, "grabcut"), (0, 0.5, 1), (0, edge, 1))
    lifted -= refine(scoremap, image, "guided")
    np.testing.assert_allclose(lifted, lifted.round(), atol=1e-12)
    assert iou(lifted > 0.5, mask) > 0.94


@pytest.mark.parametrize("scale", [0.01, 0.05, 0.1])
def test_grabcut_is_cut_higher_the_broader_the_map_was(square, scale):
    image, scoremap = square[0], slope(scale)
    tau = own_threshold(scoremap)
    edge = 0.5 + 0.75 * tau**2
    refined, guided = refine(scoremap, image, "grabcut"), refine(scoremap, image, "guided")
    lifted = 2 * np.interp(refined, (0, 0.5, 1), (0, edge, 1)) - guided
    np.testing.assert_allclose(lifted, lifted.round(), atol=1e-12)
    assert set(lifted.round().ravel()) == {0, 1}
    assert edge - 0.5 == pytest.approx({0.01: 0.002, 0.05: 0.148, 0.1: 0.1875}[scale], abs=5e-4)
    assert np.array_equal(refined > 0.5, (lifted > 0.5) & (guided > 1.5 * tau**2))
    assert ((lifted > 0.5) & (guided < 1.5 * tau**2)).any() or scale < 0.1, "or nothing of the result is left out"


def test_an_image_is_brought_to_the_maps_size():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    found = fit_image(image)
    assert found.dtype == np.uint8
    assert np.array_equal(found, image.resize((224, 224), Image.Resampling.BILINEAR))


def test_names_say_the_refinement_if_there_is_one():
    assert [refined_name("both", each) for each in REFINEMENTS] == ["both", "both, guided", "both, grabcut"]


def slope(scale: float) -> np.ndarray:
    """A map with an object of any score on a background whose scores fall off at `scale`."""
    random = np.random.default_rng(0)
    scores = random.exponential(scale, (SIDE, SIDE))
    scores[30:66, 24:70] = random.uniform(0.2, 1, (36, 46))
    return scores.clip(0, 1)


@pytest.mark.parametrize(("scale", "limit"), [(0.01, "bend / 2"), (0.03, "threshold ** 2"), (0.3, "a quarter")])
def test_grabcut_starts_from_what_the_map_is_sure_of(square, scale, limit, monkeypatch):
    scoremap = slope(scale)
    bend = cv2.threshold((scoremap * 255).astype(np.uint8), 0, 255, cv2.THRESH_TRIANGLE)[0] / 255
    middle = min(0.5, 20 * bend**2)
    low = {"bend / 2": bend / 2, "threshold ** 2": middle**2, "a quarter": 0.25}[limit]
    assert low == min(0.25, max(middle**2, bend / 2))
    scoremap[0, :3] = 0.75, middle, low  # no limit is itself beyond it
    expected = np.where(scoremap > middle, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    expected[scoremap > 0.75] = cv2.GC_FGD
    expected[scoremap < low] = cv2.GC_BGD
    asked, seeds = [], []
    monkeypatch.setattr(cv2, "grabCut", lambda image, seed, *more: asked.append((seed.copy(), *more)))
    monkeypatch.setattr(cv2, "setRNGSeed", seeds.append)
    refine(scoremap, square[0], "grabcut")
    ((seed, _, _, _, *more),) = asked
    assert np.array_equal(seed, expected)
    assert more == [3, cv2.GC_INIT_WITH_MASK]
    assert seeds == [0]


def test_a_broad_map_is_cut_at_its_middle_and_a_peak_on_a_plain_near_its_foot():
    taus = [own_threshold(slope(scale)) for scale in (0.3, 0.05, 0.03, 0.01)]
    assert taus == sorted(taus, reverse=True)
    assert taus[0] == own_threshold(slope(0.3), "grabcut") == own_threshold(np.ones((8, 8))) == 0.5
    assert 0 < taus[-1] < 0.1
    assert own_threshold(slope(0.01), "grabcut") == 0.5
    # The bend by hand: the level farthest below the line from the histogram's peak to its end.
    counts = np.bincount((slope(0.03) * 255).astype(np.uint8).ravel(), minlength=256)
    peak, end = int(counts.argmax()), 255
    below = np.interp(np.arange(peak, end), (peak, end), (counts[peak], 0)) - counts[peak:end]
    assert taus[2] == pytest.approx(20 * ((peak + below.argmax()) / 255) ** 2, abs=0.02)


@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_threads_give_the_same_bits(square, refinement):
    image, _, scoremap = square
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: refine(scoremap, image, refinement), range(8)))
    assert all(np.array_equal(each, found[0]) for each in found)


@pytest.mark.parametrize("refinement", REFINEMENTS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_stays(square, refinement, value):
    constant = np.full((SIDE, SIDE), value)
    np.testing.assert_array_equal(refine(constant, square[0], refinement), constant)


@pytest.mark.parametrize("lowest", [0.8, 0.6])
def test_a_map_without_background_is_left_to_itself(square, lowest):
    scoremap = lowest + (1 - lowest) * square[2]
    np.testing.assert_array_equal(refine(scoremap, square[0], "grabcut"), scoremap)


def test_none_changes_nothing(square):
    assert refine(square[2], square[0], "none") is square[2]


def test_what_does_not_fit_is_refused(square):
    image, _, scoremap = square
    with pytest.raises(ValueError, match="refinement is 'crf'; accepted are none, guided, grabcut"):
        refine(scoremap, image, "crf")
    with pytest.raises(ValueError, match=r"image is uint8 \[96, 95, 3\]; uint8 \[96, 96, 3\] is accepted"):
        refine(scoremap, image[:, 1:], "guided")


@pytest.mark.parametrize(
    "wrong", [None, np.zeros(9), np.zeros((9, 9, 2)), np.zeros((9, 9), int), np.full((9, 9), 1.01)]
)
def test_what_is_no_score_map_is_refused(wrong):
    for read in (own_threshold, lambda scoremap: refine(scoremap, np.zeros((9, 9, 3), np.uint8), "guided")):
        with pytest.raises(ValueError, match=r"scoremap .* accepted"):
            read(wrong)
