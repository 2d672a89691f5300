"""The component tree scores exactly what OpenCV's contours score, at every threshold."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import evaluator, exactness
from benchmarks.exactness import count_differences, search_every_threshold
from benchmarks.scoremaps import KINDS, true_boxes
from iir_fast.evaluation import contours, largest_box
from iir_fast.evaluation.boxes import box_iou, contour_boxes, thresholds
from iir_fast.evaluation.contours import score_contours, search_contours
from iir_fast.evaluation.library import REFUSED, compiled

needs_library = pytest.mark.skipif(compiled() is None, reason="installed without a C++ compiler")
TAUS = thresholds(0.001)
MAP, BOX = np.eye(5), np.array([[0, 0, 3, 3]])


def test_what_was_compiled_is_found():
    assert (compiled() is None) != Path(contours.__file__).with_name("_compiled.library").exists()


@needs_library
def test_no_difference_on_maps_of_all_kinds():
    assert count_differences(20 * len(KINDS), seed=1) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_protocols_own_loop_gives_the_same(kind):
    random = np.random.default_rng(2)
    scoremap, boxes = KINDS[kind](random, 40), true_boxes(random, 40)
    for one, other in zip(
        score_contours(scoremap, TAUS, boxes), search_every_threshold(scoremap, TAUS, boxes), strict=True
    ):
        assert np.array_equal(one, other)


@needs_library
def test_of_equally_large_contours_the_one_that_begins_last_counts():
    scoremap = np.zeros((12, 12))
    scoremap[2:4, 1:3] = scoremap[2:4, 8:10] = scoremap[7:9, 4:6] = 1
    for row, column, expected in ((2, 1, 0.0), (2, 8, 0.0), (7, 4, 4 / 9)):
        boxes = np.array([[column, row, column + 1, row + 1]])
        largest, best = score_contours(scoremap, np.array([0.5]), boxes)
        assert largest[0] == expected
        assert best[0] == 4 / 9


@needs_library
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (17, 41), (300, 5), (3, 3)], ids=str)
def test_any_shape(shape):
    # One after the other in one thread, which keeps its memory: what a map leaves there must not reach the next.
    scoremap = np.random.default_rng(3).random(shape)
    boxes = np.array([[0, 0, shape[1] - 1, shape[0] - 1]])
    for one, other in zip(score_contours(scoremap, TAUS, boxes), search_contours(scoremap, TAUS, boxes), strict=True):
        assert np.array_equal(one, other)


@needs_library
def test_every_cut_of_small_images_of_few_levels():
    # Where most pixels have neighbours of their own level, the order among equals decides.
    random = np.random.default_rng(5)
    for number in range(400):
        shape = random.integers(1, 9, 2)
        scoremap, boxes = random.integers(0, 2 + number % 4, shape) * 60 / 255, np.array([[1, 1, 4, 3]])
        scores = score_contours(scoremap, TAUS, boxes), search_contours(scoremap, TAUS, boxes)
        assert all(map(np.array_equal, *scores)), scoremap


def test_a_search_takes_thresholds_in_any_order():
    ramp, taus = np.tile(np.linspace(0, 1, 224), (224, 1)), np.array([0.7, 0.1, 0.4])
    box = np.array([[50, 0, 150, 223]])
    expected = [box_iou(np.array([largest_box(ramp, tau)]), box).item() for tau in taus]
    assert search_contours(ramp, taus, box)[0].tolist() == expected


def test_a_search_cuts_each_level_once(monkeypatch):
    cuts = []
    monkeypatch.setattr(contours, "contour_boxes", lambda image, cut: cuts.append(cut) or contour_boxes(image, cut))
    search_contours(np.tile(np.linspace(0, 1, 224), (224, 1)), TAUS, BOX)
    assert cuts == list(range(255))


def test_without_a_compiler_opencv_does_it(monkeypatch):
    random = np.random.default_rng(4)
    scoremap, boxes = KINDS["14x14"](random, 48), true_boxes(random, 48)
    expected = search_contours(scoremap, TAUS, boxes)
    monkeypatch.setattr(contours, "compiled", lambda: None)
    for one, other in zip(score_contours(scoremap, TAUS, boxes), expected, strict=True):
        assert np.array_equal(one, other)


@needs_library
def test_arrays_of_other_dtypes_and_layouts_are_what_they_hold():
    random = np.random.default_rng(6)
    scoremap, boxes = random.random((40, 30)).astype(np.float32).T, np.array([[3, 4], [5, 2], [19, 21], [20, 30]]).T
    expected = search_contours(scoremap.astype(np.float64), TAUS, boxes)
    assert not scoremap.flags.c_contiguous
    for given in (boxes, boxes.astype(np.int32)):
        for one, other in zip(score_contours(scoremap, TAUS, given), expected, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (REFUSED, ValueError, r"scoremap is \[5, 7\]; fewer than 2\*\*28 pixels are accepted"),
        (-1, MemoryError, "no memory for a map of 5 x 7 pixels"),
    ],
)
def test_what_the_compiled_part_cannot_do_is_said(answer, error, sentence, monkeypatch):
    monkeypatch.setattr(contours, "compiled", lambda: SimpleNamespace(iir_fast_score_contours=lambda *given: answer))
    with pytest.raises(error, match=sentence):
        score_contours(np.eye(5, 7), TAUS, BOX)


def test_a_box_may_end_right_before_the_bound():
    assert score_contours(MAP, TAUS, np.array([[0, 0, 3, 2**30 - 1]]))[1].max() > 0


@pytest.mark.parametrize(
    ("scoremap", "taus", "boxes", "sentence"),
    [
        (np.ones(25), TAUS, BOX, r"scoremap is float64 \[25\]; a floating array \[H, W\] .* is accepted"),
        (np.ones((0, 5)), TAUS, BOX, r"scoremap is float64 \[0, 5\]"),
        (np.ones((5, 5), int), TAUS, BOX, r"scoremap is int64 \[5, 5\]"),
        (MAP.tolist(), TAUS, BOX, "scoremap is a list"),
        (MAP * 1.1, TAUS, BOX, r"scoremap holds values from 0\.0 to 1\.1"),
        (-MAP, TAUS, BOX, r"scoremap holds values from -1\.0"),
        (MAP * np.nan, TAUS, BOX, "scoremap holds values from nan"),
        (MAP, 0.5, BOX, r"taus is a float; a floating array \[T\] is accepted"),
        (MAP, TAUS[None], BOX, r"taus is float64 \[1, 1000\]"),
        (MAP, np.array([0.1, 1.0]), BOX, r"taus holds values from 0\.1 to 1\.0; values in \[0, 1\) are accepted"),
        (MAP, np.array([np.nan]), BOX, "taus holds values from nan"),
        (MAP, TAUS, BOX[0], r"boxes is int64 \[4\]; an integer array \[n, 4\] with n >= 1 is accepted"),
        (MAP, TAUS, BOX[:, :3], r"boxes is int64 \[1, 3\]"),
        (MAP, TAUS, BOX[:0], r"boxes is int64 \[0, 4\]"),
        (MAP, TAUS, BOX / 2, r"boxes is float64 \[1, 4\]"),
        (MAP, TAUS, BOX.tolist(), "boxes is a list"),
        (MAP, TAUS, np.concatenate([BOX, BOX - 1]), r"boxes holds \[-1, -1, 2, 2\]; 0 <= x0 <= x1"),
        (MAP, TAUS, np.concatenate([BOX, BOX[:, ::-1]]), r"boxes holds \[3, 3, 0, 0\]"),
        (MAP, TAUS, np.concatenate([BOX, BOX * 2**40]), r"boxes holds \[0, 0, 3298534883328"),
        (MAP, TAUS, np.array([[0, 0, 3, 2**30]]), r"boxes holds \[0, 0, 3, 1073741824\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_map_or_no_box_is_refused(scoremap, taus, boxes, sentence):
    with pytest.raises(ValueError, match=sentence):
        score_contours(scoremap, taus, boxes)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_sanitizers_find_nothing(tmp_path):
    source = Path(contours.__file__).parent
    driver = tmp_path / "driver.cpp"
    driver.write_text(f"""
#include "{source / "contours.cpp"}"
#include "{source / "histogram.cpp"}"
#include <cmath>
#include <cstdio>
int main() {{
    unsigned state = 1;
    for (int round = 0; round < 400; ++round) {{
        const int height = 1 + round % 23, width = 1 + round / 3 % 19, levels = 1 + round % 5 * 63;
        std::unique_ptr<double[]> scoremap(new double[height * width]);
        for (int i = 0; i < height * width; ++i) {{
            state = state * 1664525u + 1013904223u;
            scoremap[i] = uint8_t(state >> 16) % levels / 255.0;
        }}
        const int64_t boxes[8] = {{0, 0, width - 1, height - 1, 1, 1, 2, 2}};
        std::unique_ptr<double[]> largest(new double[256]), best(new double[256]);
        if (iir_fast_score_contours(scoremap.get(), height, width, boxes, 2, largest.get(), best.get()) < 0) return 1;
        for (int cut = 0; cut < 256; ++cut)
            if (!(largest[cut] >= 0 && largest[cut] <= best[cut] && best[cut] <= 1)) return 2;
        const double edges[6] = {{0, 0.3, 0.6, 0.9, 1, 2}};
        std::unique_ptr<uint8_t[]> on_object(new uint8_t[height * width]), elsewhere(new uint8_t[height * width]);
        for (int i = 0; i < height * width; ++i) elsewhere[i] = !(on_object[i] = i % 2);
        int64_t foreground[5] = {{}}, background[5] = {{}}, counted = 0;
        if (iir_fast_count_scores(scoremap.get(), on_object.get(), elsewhere.get(), height * width, edges, 5,
                                  foreground, background) < 0) return 4;
        for (int bin = 0; bin < 5; ++bin) counted += foreground[bin] + background[bin];
        if (counted != height * width) return 3;
        const int64_t backwards[4] = {{2, 0, 1, 1}}, beyond[4] = {{0, 0, int64_t(1) << 30, 1}};
        const auto refuses = [&](const double* map, int64_t high, int64_t wide, const int64_t* truth, int64_t count) {{
            return iir_fast_score_contours(map, high, wide, truth, count, largest.get(), best.get()) == -2;
        }};
        if (!refuses(nullptr, height, width, boxes, 2) || !refuses(scoremap.get(), 0, width, boxes, 2) ||
            !refuses(scoremap.get(), height, -1, boxes, 2) || !refuses(scoremap.get(), height, width, boxes, 0) ||
            !refuses(scoremap.get(), int64_t(1) << 32, int64_t(1) << 32, boxes, 2) ||
            !refuses(scoremap.get(), height, width, nullptr, 2) ||
            !refuses(scoremap.get(), height, width, backwards, 1) ||
            !refuses(scoremap.get(), height, width, beyond, 1)) return 5;
        const double none[6] = {{0, 0, 0, 0, 0, 0}}, off[6] = {{0.1, 0.3, 0.6, 0.9, 1, 2}};
        for (const double* wrong : {{none, off}})
            if (iir_fast_count_scores(scoremap.get(), on_object.get(), elsewhere.get(), 1, wrong, 5,
                                      foreground, background) != -2) return 6;
        for (double value : {{-0.1, 1.1, 1e300, double(NAN)}}) {{
            scoremap[height * width - 1] = value;
            if (!refuses(scoremap.get(), height, width, boxes, 2)) return 7;
            if (iir_fast_count_scores(scoremap.get(), on_object.get(), elsewhere.get(), height * width, edges, 5,
                                      foreground, background) != -2) return 8;
        }}
    }}
    std::puts("sound");
}}
""")
    program = tmp_path / "driver"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["g++", "-std=c++17", "-O1", "-g", *sanitize, "-o", str(program), str(driver)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "sound"), result.stderr[-2000:]


@needs_library
def test_the_benchmarks_write_their_tables(tmp_path):
    evaluator.main(tmp_path / "evaluator.md", maps=2, images=10)
    lines = (tmp_path / "evaluator.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if "times**" in line] == ["| 14x14", "| 7x7", "| 28x28"]
    assert any(line.startswith("| 2 |") for line in lines)
    with pytest.raises(SystemExit) as stopped:
        exactness.main(20, tmp_path / "exactness.md")
    assert stopped.value.code == 0
    assert "**0 differ**" in (tmp_path / "exactness.md").read_text()


def test_a_difference_is_counted(monkeypatch):
    monkeypatch.setattr(exactness, "search_contours", lambda *arguments: np.zeros((2, len(TAUS))))
    assert exactness.count_differences(28) > 10
