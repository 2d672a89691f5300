"""Histograms of scores are exactly NumPy's, compiled or not, for scores on the edges of bins and next to them."""

from __future__ import annotations

import numpy as np
import pytest

from iir_fast.evaluation import measurement, thresholds
from iir_fast.evaluation.library import compiled
from iir_fast.evaluation.measurement import count_scores


@pytest.fixture(params=["compiled", "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(measurement, "compiled", lambda: None)
    elif compiled() is None:
        pytest.skip("installed without a C++ compiler")


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("step", [0.001, 0.01, 0.07, 0.3, 1 / 3, 0.1 + 1e-16, 1.0])
def test_what_numpy_counts(step: float) -> None:
    random = np.random.default_rng(0)
    edges = np.append(thresholds(step), [1.0, 2.0, 3.0])
    on_edges = edges[edges <= 1]
    hard = np.concatenate([on_edges, np.nextafter(on_edges, -1), np.nextafter(on_edges, 2)]).clip(0, 1)
    scoremap = np.concatenate([hard, random.random(4096 - len(hard))]).reshape(64, 64)
    on_object = random.random(scoremap.shape) < 0.4
    elsewhere = ~on_object & (random.random(scoremap.shape) < 0.5)
    foreground, background = count_scores(scoremap, on_object, elsewhere, edges)
    assert np.array_equal(foreground, np.histogram(scoremap[on_object], edges)[0])
    assert np.array_equal(background, np.histogram(scoremap[elsewhere], edges)[0])


@pytest.mark.parametrize(
    ("value", "edges"),
    [(np.nan, [0, 0.5, 2]), (-0.1, [0, 0.5, 2]), (1.1, [0, 0.5, 2]), (0.5, [0.1, 2]), (0.5, [0, 0, 2])],
)
@pytest.mark.skipif(compiled() is None, reason="installed without a C++ compiler")
def test_what_would_count_beside_the_bins_is_refused(value: float, edges: list[float]) -> None:
    scoremap, mask = np.full((4, 4), value), np.ones((4, 4), bool)
    with pytest.raises(ValueError, match=r"^count_scores: .*, ascending from 0, are accepted.$"):
        count_scores(scoremap, mask, ~mask, np.array(edges))
    for wrong in (np.zeros((3, 0)), np.array([[0, 0.5], [1, 2]])):
        with pytest.raises(ValueError, match="ascending from 0"):
            count_scores(np.zeros((4, 4)), mask, ~mask, wrong)
    with pytest.raises(ValueError, match=r"are \[4, 4\], \[3, 4\] and \[4, 4\]; one shape is accepted"):
        count_scores(scoremap, mask[1:], ~mask, np.array([0, 0.5, 2]))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(("dtype", "of_masks"), [(np.float64, np.bool_), (np.float32, np.int64)])
def test_arrays_need_not_be_contiguous_nor_of_the_usual_dtype(dtype: type, of_masks: type) -> None:
    scoremap, edges = np.random.default_rng(1).random((8, 6)).astype(dtype).T, np.array([0, 0.5, 1, 2], dtype)
    on_object = np.random.default_rng(2).random((12, 8))[::2] < 0.5
    masks = (each.astype(of_masks) for each in (on_object, ~on_object))
    foreground, background = count_scores(scoremap, *masks, edges)
    assert np.array_equal(foreground, np.histogram(scoremap[on_object], edges)[0])
    assert np.array_equal(background, np.histogram(scoremap[~on_object], edges)[0])
