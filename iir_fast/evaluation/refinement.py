"""From a score map to one that follows the image: what the network's few cells cannot know of an object's edge."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_fast.evaluation.scoremaps import PROTOCOL_SIZE, check_scores
from iir_fast.names import REFINEMENTS, Refinement

RADIUS = 16
EPSILON = 1e-3
"""Of the guided filter: half its window in pixels of the score map, and how much a colour must vary to count."""
MIDDLE, RISE = 0.5, 20.0
"""Of a map's own threshold: the highest, and how it rises with the square of where the histogram bends."""
SURE_OBJECT, SURE_BACKGROUND = 0.75, 0.25
"""The scores above and below which GrabCut takes the map's word; where a map is a peak, below less than the second."""
FIRM = 1.5
"""The edge of what GrabCut finds lies where the guided map is so many times the square of the map's threshold."""
ROUNDS = 3


def fit_image(image: Image.Image) -> NDArray[np.uint8]:
    """Bring an RGB image to the size of a score map, uint8 [224, 224, 3], as `refine` takes it."""
    return np.asarray(image.resize((PROTOCOL_SIZE, PROTOCOL_SIZE), Image.Resampling.BILINEAR), np.uint8)


def own_threshold(scoremap: NDArray[np.float64], refinement: Refinement = "none") -> float:
    """Choose a score map's threshold by the map alone: min(1/2, 20 t^2), t where its histogram bends.

    A map whose scores fall off slowly bends late and is cut at its middle, one that is a peak on a low plain near its
    foot. The formula is ours; `docs/ablation.md` says on what it was chosen.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        refinement: how the map was refined; the edge of one by GrabCut is at 1/2.

    Returns:
        tau in [0, 1/2].

    Raises:
        ValueError: the map is another array, leaves [0, 1] or holds NaN.
    """
    check_scores(scoremap, "scoremap")
    return MIDDLE if refinement == "grabcut" else _threshold_at(_bend(scoremap))


def _threshold_at(bend: float) -> float:
    return min(MIDDLE, RISE * bend**2)


def _bend(scoremap: NDArray[np.float64]) -> float:
    """Find where a histogram of 255 levels bends: the triangle method (Zack, Rogers and Latt, 1977)."""
    level, _ = cv2.threshold((scoremap * 255).astype(np.uint8), 0, 255, cv2.THRESH_TRIANGLE)
    return level / 255


def refined_name(name: str, refinement: Refinement) -> str:
    """Give a map's or a result's `name` its `refinement`, if any: "both, grabcut"."""
    return name if refinement == "none" else f"{name}, {refinement}"


def check_refinement(refinement: str) -> None:
    """Raise ValueError unless `refine` knows a refinement."""
    if refinement not in REFINEMENTS:
        raise ValueError(f"refinement is {refinement!r}; accepted are {', '.join(REFINEMENTS)}.")


def refine(scoremap: NDArray[np.float64], image: NDArray[np.uint8], refinement: Refinement) -> NDArray[np.float64]:
    """Refine a score map by the image it is of.

    Args:
        scoremap: float64 [H, W] in [0, 1].
        image: uint8 [H, W, 3], RGB, at the map's size.
        refinement: "none"; "guided": the guided filter (He, Sun and Tang, "Guided Image Filtering", PAMI 2013),
            stretched to [0, 1]; "grabcut": GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) from the map as its
            seed, and the mean of the guided map and the result. Its scores are stretched so that 1/2 is reached within
            the result where the guided map has 3/2 tau^2, with tau the `own_threshold` of `scoremap`: of what is found
            far from a broad map's object, nothing is left at 1/2.

    Returns:
        float64 [H, W] in [0, 1]. A constant map stays as it is.

    Raises:
        ValueError: `refinement` is none of the three, the map is another array, leaves [0, 1] or holds NaN, or `image`
            is not of its size.
    """
    check_refinement(refinement)
    check_scores(scoremap, "scoremap")
    if image.shape != (*scoremap.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}; uint8 {[*scoremap.shape, 3]} is accepted, at the map's size."
        )
    if refinement == "none" or scoremap.min() == scoremap.max():
        return scoremap
    return _guided(scoremap, image) if refinement == "guided" else _grabcut(scoremap, image)


def _guided(scoremap: NDArray[np.float64], image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Fit the map, in every window, by a linear function of the colour."""

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(cv2.boxFilter(values, -1, (2 * RADIUS + 1,) * 2), np.float64)

    colour = image.astype(np.float64) / 255
    mean_colour, mean_score = mean(colour), mean(scoremap)
    products = mean((colour[..., :, None] * colour[..., None, :]).reshape(*scoremap.shape, 9))
    covariance = products.reshape(*scoremap.shape, 3, 3) - mean_colour[..., :, None] * mean_colour[..., None, :]
    with_score = mean(colour * scoremap[..., None]) - mean_colour * mean_score[..., None]
    slope = np.linalg.solve(covariance + EPSILON * np.eye(3), with_score[..., None])[..., 0]
    offset = mean_score - (slope * mean_colour).sum(axis=2)
    fitted: NDArray[np.float64] = (mean(slope) * colour).sum(axis=2) + mean(offset)
    fitted -= fitted.min()
    fitted /= fitted.max() or 1
    return fitted


def _grabcut(scoremap: NDArray[np.float64], image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cut the object out by its colours, which GrabCut learns from what the map is sure of."""
    bend = _bend(scoremap)
    tau = _threshold_at(bend)
    seed = np.where(scoremap > tau, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seed[scoremap > SURE_OBJECT] = cv2.GC_FGD
    seed[scoremap < min(SURE_BACKGROUND, max(tau**2, bend / 2))] = cv2.GC_BGD
    if len(np.unique(seed & 1)) < 2:  # no background at all: there are no colours to learn
        return scoremap
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, seed, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    edge = (FIRM * tau**2 + 1) / 2
    return np.interp((_guided(scoremap, image) + (seed & 1)) / 2, (0, edge, 1), (0, MIDDLE, 1))
