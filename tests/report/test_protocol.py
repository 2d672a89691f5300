"""The page's own way from a map to a box gives the evaluator's boxes."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iir_fast.evaluation import largest_box, resize_scoremap
from iir_fast.localization import scale_box

SIDES = (1, 2, 3, 4, 5, 7, 8, 10, 12, 14, 16, 17, 24, 28, 32, 37, 64, 224, 300)
TAUS = (0.0, 0.19, 0.5, 0.77, 0.99)
RUN = """
([maps, taus]) => maps.map(([height, width, map]) => {
  const grey = greyLevels(Float32Array.from(map), height, width);
  return taus.map((tau) => largestBox(grey, cutLevel(grey, tau)));
})
"""


def maps_of_all_kinds() -> list[NDArray[np.float32]]:
    """Rough, smooth, peaked, saturated and stepped maps, single points, rings, constants; square and not."""
    random = np.random.default_rng(0)
    maps = []
    for number in range(80):
        height = width = SIDES[number % len(SIDES)]
        if number % 5 == 0:
            width = max(1, width // 2)
        rough = random.random((height, width))
        y, x = np.mgrid[:height, :width] / max(height, width)
        radius = np.hypot(y - random.random(), x - random.random())
        points = np.zeros((height, width))
        points[random.integers(height, size=2), random.integers(width, size=2)] = 1
        kinds = (
            rough,
            np.exp(-8 * radius**2),
            rough**6,
            np.minimum(1, 2 * np.exp(-8 * radius**2)),
            np.round(4 * rough) / 4,
            points,
            np.abs(radius - 0.3) < 0.1,
            np.full((height, width), rough[0, 0]),
        )
        maps.append(kinds[number % 8].astype(np.float32))
    return maps


def test_boxes_are_the_evaluators(page: Any) -> None:
    page.add_script_tag(path=str(files("iir_fast.report") / "web" / "protocol.js"))
    maps = maps_of_all_kinds()
    found = page.evaluate(RUN, [[[*map.shape, map.ravel().tolist()] for map in maps], TAUS])
    for map, boxes in zip(maps, found, strict=True):
        scoremap = resize_scoremap(torch.from_numpy(map))
        assert [tuple(box) for box in boxes] == [largest_box(scoremap, tau) for tau in TAUS], map.tolist()


def test_boxes_go_to_pixels_as_localize_has_them(page: Any) -> None:
    page.add_script_tag(path=str(files("iir_fast.report") / "web" / "protocol.js"))
    random = np.random.default_rng(0)
    boxes = [[0, 0, 0, 0], [0, 0, 223, 223], [1, 3, 5, 7], *random.integers(224, size=(200, 4)).tolist()]
    # In the first two, many edges fall between two pixels.
    for size in ((112, 336), (560, 16), (500, 375), (64, 96)):
        found = page.evaluate("([boxes, size]) => boxes.map((box) => scaleBox(box, size))", [boxes, size])
        assert [tuple(box) for box in found] == [scale_box(box, size) for box in boxes]


def test_a_map_with_a_bad_value_has_no_box(page: Any) -> None:
    page.add_script_tag(path=str(files("iir_fast.report") / "web" / "protocol.js"))
    (boxes,) = page.evaluate(RUN.replace("Float32Array.from(map)", "[0, NaN, 1, 1]"), [[[2, 2, []]], [0.5]])
    assert boxes == [[0, 0, 0, 0]]
