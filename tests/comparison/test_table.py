"""Tables: means, spreads, bold, what is missing, and the sentences on the best rows."""

from __future__ import annotations

from math import hypot
from pathlib import Path
from statistics import stdev

import pytest

from iir_fast.comparison import Comparison, PlannedRun, Published, RunResult, difference_spread, tables, with_spread
from iir_fast.comparison.results import Cost
from iir_fast.training import TrainConfig

ROWS = ("CAM", "IIR", "IIR mixed")


def metrics(v2: float, pxap: float | None = 50.0) -> dict:
    curves = [{"threshold": tau} for tau in (0.2, 0.3, 0.4)]
    figures = {"max_box_acc": 40.0, "top1_loc": 30.0, "top1_accuracy": 70.0, "max_box_acc_v2": v2, "pxap": pxap}
    figures["no_box_gt_known_loc"] = 20.0
    return {**figures, "curve_v1": curves[1], "curves_v2": curves}


def printed(v2: dict[str, list[float | None]], pxap: tuple[float | None, ...] = (50.0,) * 3) -> str:
    """Tables of rows with MaxBoxAccV2 per seed, None for a run that failed, and PxAP per seed of every row."""
    seeds = tuple(range(len(next(iter(v2.values())))))
    results = []
    for row, values in v2.items():
        for seed, value in enumerate(values):
            run = PlannedRun(row, "", seed, TrainConfig(), Path(row, str(seed)))
            if value is None:
                results.append(RunResult(run, None, None, "ValueError: no luck"))
            else:
                figures = metrics(value, pxap[seed])
                results.append(RunResult(run, {"cam": figures}, Cost(60.0 + seed, 90.0, 10**9, "cpu", 2)))
    runs = tuple(result.run for result in results)
    return tables(Comparison("T", ("cam",), tuple(v2), ("",), seeds, runs, ""), results)


def cells(text: str, row: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_of_several_seeds():
    assert with_spread([40.0, 42.0, 44.0]) == "42.0 ± 2.0"
    assert with_spread([40.0]) == "40.0"
    assert difference_spread([1.0, 2.0], [5.0, 9.0]) == hypot(stdev([1, 2]), stdev([5, 9]))
    assert difference_spread([1.0], [5.0, 9.0]) is None


def test_a_row_has_figures_thresholds_time_and_memory():
    text = printed({"CAM": [40.0, 42.0, 44.0], "IIR": [50.0, 50.0, 50.0]})
    assert cells(text, "CAM")[2:] == [
        "**20.0 ± 0.0**",
        "42.0 ± 2.0",
        "**40.0 ± 0.0**",
        "**50.0 ± 0.0**",
        "**30.0 ± 0.0**",
        "**70.0 ± 0.0**",
        "0.20 0.30 0.40",
        "0.30",
        "61 s",
        "90 s",
        "1000 MB",
    ]
    assert cells(text, "IIR")[3] == "**50.0 ± 0.0**"
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1
    assert "over 3 seeds" in text
    assert "Threads per run: 2." in text


def test_the_sentence_names_the_next_row_and_the_next_method():
    text = printed({"CAM": [40.0, 44.0], "IIR": [50.0, 50.0], "IIR mixed": [48.0, 51.0]})
    assert (
        "Best MaxBoxAccV2: IIR, CAM map, 50.0 ± 0.0; next IIR mixed, CAM map, 49.5 ± 2.1, 0.5 behind, within the "
        "spread of 2.1 (0.2 times); best that is not IIR: CAM, CAM map, 42.0 ± 2.8, 8.0 behind, beyond the spread of "
        "2.8 (2.8 times).\n"
    ) in text


def test_the_sentence_says_when_another_method_leads():
    text = printed({"CAM": [60.0, 64.0], "IIR": [50.0, 50.0]})
    assert "Best MaxBoxAccV2: CAM, CAM map, 62.0 ± 2.8; next IIR, CAM map, 50.0 ± 0.0, 12.0 behind, beyond" in text
    assert "best that is not" not in text


def test_one_seed_has_no_spread():
    text = printed({"CAM": [40.0], "IIR": [50.0]})
    assert cells(text, "IIR")[3] == "**50.0**"
    assert "CAM, CAM map, 40.0, 10.0 behind, one seed, no spread." in text


def test_what_is_missing_is_said():
    text = printed({"CAM": [40.0, None], "IIR": [None, None]}, pxap=(None, None))
    assert cells(text, r"CAM (1 of 2 seeds)")[3:6] == ["**40.0**", "**40.0**", "-"]
    assert cells(text, r"IIR (0 of 2 seeds)")[2:] == ["-"] * 11
    assert "- CAM, seed 1: ValueError: no luck\n" in text
    assert "1 of 4 runs are complete." in text
    assert "Best PxAP: none, no run says it." in text


def test_no_mean_is_taken_over_fewer_seeds_than_are_said():
    text = printed({"CAM": [40.0, 42.0], "IIR": [50.0, 50.0]}, pxap=(60.0, None))
    assert cells(text, "CAM")[5] == cells(text, "IIR")[5] == "-"
    assert "Best PxAP: none, no run says it." in text


def test_published_figures_stand_last_with_their_sources_and_are_no_rivals():
    run = PlannedRun("CAM", "b", 0, TrainConfig(), Path("CAM"))
    published = (Published("Theirs", "A paper", "b", {"max_box_acc_v2": 99.25, "pxap": 9}),)
    result = RunResult(run, {"cam": metrics(40.0)}, Cost(60.0, 90.0, 10**9, "cpu", 2))
    planned = Comparison("T", ("cam",), ("CAM",), ("a", "b"), (0,), (run,), "", published=published)
    a, b = tables(planned, [result]).split("## b\n")
    assert "Theirs" not in a
    lines = b.splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    assert lines[last].startswith("| Theirs ")
    assert cells(b, "Theirs")[1:] == ["published, not measured here", "-", "99.25", "-", "9", *["-"] * 7]
    assert lines[last + 1 : last + 5] == [
        "",
        "Sources of what is published, not measured here:",
        "",
        "- Theirs: A paper",
    ]
    assert cells(b, "CAM")[3] == "**40.0**"
    assert "Best MaxBoxAccV2: CAM, CAM map, 40.0.\n" in b


@pytest.mark.parametrize(("seconds", "words"), [(599.0, "599 s"), (660.0, "11 min")])
def test_long_times_are_minutes(seconds, words):
    run = PlannedRun("CAM", "", 0, TrainConfig(), Path("CAM"))
    result = RunResult(run, {"cam": metrics(40.0)}, Cost(seconds, 90.0, 10**9, "cuda", 2))
    text = tables(Comparison("T", ("cam",), ("CAM",), ("",), (0,), (run,), ""), [result])
    assert cells(text, "CAM")[-3] == words
    assert "what tensors take on the GPU" in text
