"""The report of a made-up run, with a shape that loses and a promise that is broken."""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks.acceptance import judge
from benchmarks.records import read
from benchmarks.report import render, write

MACHINE = {
    "device": "cpu",
    "processor": "Made-up CPU",
    "threads": 2,
    "memory_bytes": 16 << 30,
    "python": "3.11",
    "torch": "2.9",
    "triton": None,
    "iir_fast": "0.1.0",
}
HEADLINE = {"channels": 512, "side": 28, "batch": 32, "classes": 1000, "dtype": "fp32", "channels_last": False}


def rows(what, shape, seconds, extra):
    """All contenders' rows; `seconds` holds the floor too."""
    name = f"{shape['side']}x{shape['side']} {shape['dtype']}"
    ratio = {
        peer: {
            "median": each / seconds["package"],
            "first_quartile": 0.9 * each / seconds["package"],
            "third_quartile": 1.1 * each / seconds["package"],
            "rounds": 7,
        }
        for peer, each in seconds.items()
        if peer != "package"
    }
    found = []
    for contender, taken in extra.items():
        info = {"what": what, "contender": contender, "name": name, "shape": shape, "extra_peak_bytes": taken}
        if contender == "package":
            in_turns = {peer: [each] * 3 for peer, each in seconds.items()}
            info |= {"gb_per_s": 12.0, "percent_of_copy": 60.0, "in_turns": ratio, "seconds_in_turns": in_turns}
        found.append({"group": f"{what} {name}", "extra_info": info})
    return found


@pytest.fixture
def run():
    shape = {**HEADLINE, "feature_bytes": 51380224}
    small = {**HEADLINE, "side": 7, "feature_bytes": 3211264}
    seconds = {
        "package": 0.02,
        "naive": 1.3,
        "naive_compiled": 0.5,
        "batched": 0.1,
        "batched_compiled": 0.04,
        "floor": 0.015,
    }
    extra = {
        "package": 60_000_000,
        "naive": 700_000_000,
        "naive_compiled": 500_000_000,
        "batched": 300_000_000,
        "batched_compiled": 250_000_000,
    }
    benchmarks = rows("step", shape, seconds, extra)
    losing = {"package": 2e-3, "batched": 1e-3}
    benchmarks += rows("regulate", small, losing, {"package": 10_000, "batched": 20_000})
    commit = {"id": "0123456789abcdef", "dirty": False}
    return {"machine_info": MACHINE, "commit_info": commit, "datetime": "2026-01-02T03:04:05", "benchmarks": benchmarks}


@pytest.fixture
def scaling():
    points = [[4096, 0.1, 2e8], [8192, 0.2, 4e8], [16384, 0.4, 8e8]]
    name = "subgroup_similarity against descriptors"
    own = {"name": name, "contender": "package", "points": points, "out_of_memory_at": None}
    peer = {"name": name, "contender": "naive", "points": points[:1], "out_of_memory_at": 8192}
    curves = [{**own, "exponents": {"time": 1.0, "memory": 1.0}}, {**peer, "exponents": {"time": None, "memory": None}}]
    return {"kind": "scaling", "machine": MACHINE, "budget_bytes": 10**10, "channels": 1280, "curves": curves}


@pytest.fixture
def shares():
    common = {"name": "resnet50", "stride": 16, "batch": 8, "backbone": 1.9}
    measured = [
        {**common, "contender": "package", "head_and_loss": 0.01},
        {**common, "contender": "naive", "head_and_loss": 0.1},
    ]
    return {"kind": "share", "machine": MACHINE, "shares": measured}


@pytest.fixture
def evidence(tmp_path, run, scaling, shares):
    return read_all(tmp_path, run, scaling, shares)


def read_all(
    folder, *records, xml='<testsuites><testsuite tests="28" failures="0" errors="0" time="12.3"/></testsuites>'
):
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_text(json.dumps(record), encoding="utf-8")
    (folder / "tests.xml").write_text(xml, encoding="utf-8")
    return read([*paths, folder / "tests.xml"])


def test_every_promise_is_judged(evidence):
    found = judge(evidence)
    passed = [each.passed for each in found]
    # Batched under torch.compile is beaten by 2.0 only, and regulate loses to batched.
    assert passed == [True, True, True, False, True, False, True, True, True, True]
    assert "2.0 times" in found[3].measured
    assert "2.00 of its time (regulate 7x7 fp32)" in found[5].measured


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"naive": 59.0}, 0),
        ({"naive_compiled": 19.0}, 1),
        ({"batched": 4.4}, 2),
        ({"floor": 0.4}, 6),
    ],
)
def test_a_broken_promise_of_the_step_is_noticed(tmp_path, run, scaling, change, number):
    assert judge(read_all(tmp_path, run, scaling))[number].passed
    ratios = run["benchmarks"][0]["extra_info"]["in_turns"]
    for peer, median in change.items():
        ratios[peer]["median"] = median
    assert judge(read_all(tmp_path, run, scaling))[number].passed is False


def test_broken_promises_of_memory_growth_and_tests_are_noticed(tmp_path, run, scaling):
    run["benchmarks"][1]["extra_info"]["extra_peak_bytes"] = 500_000_000
    scaling["curves"][0]["exponents"] = {"time": 1.2, "memory": 2.0}
    xml = '<testsuite tests="28" failures="0" errors="1" time="12.3"/>'
    found = judge(read_all(tmp_path, run, scaling, xml=xml))
    assert [found[number].passed for number in (4, 7, 8, 9)] == [False] * 4


def test_what_was_not_measured_is_not_passed(tmp_path, run):
    run["benchmarks"] = run["benchmarks"][5:]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run), encoding="utf-8")
    assert [each.passed for each in judge(read([path]))] == [None] * 5 + [False] + [None] * 4


def test_the_report_says_where_it_loses_before_anything_it_wins(evidence):
    text = render(evidence, ["cpu/step_speedup.png"])
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## Where it loses", "## What is promised"]
    lost = text[text.index(headings[0]) : text.index(headings[1])]
    assert "- regulate 7x7 fp32: 2.00 times the time of batched" in lost
    assert text.count("| **FAIL** |") == 2
    assert "Made-up CPU, 2 threads, 16 GiB. Commit 0123456789ab. Python 3.11, torch 2.9, triton none." in text
    assert "| 28x28 fp32 | 20.0 | 65.00 (58.50 to 71.50) |" in text
    assert "| 1.33 | 60 | 700 | 300 | 500 | 250 | 12.0 (60 %) |" in text
    assert "8,192: out of memory" in text
    assert "| resnet50 | 16 | 8 | naive | 1900 | 100.0 | 5.0 % |" in text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"missing": "nvidia-ml-py is not installed"}, "GPU are missing: nvidia-ml-py is not installed."),
        (
            {"sm_clock_mhz": 1980, "memory_clock_mhz": 3201, "power_w": 412.3, "power_limit_w": 700.0},
            "At the end of the run: 1980 MHz, memory 3201 MHz, 412 of 700 W.",
        ),
    ],
)
def test_the_report_of_a_gpu_says_how_it_ran(tmp_path, run, state, words):
    gpu = {"device": "cuda", "gpu": "Made-up GPU", "gpu_memory_bytes": 80 << 30, "gpu_state": state}
    run["machine_info"] = {**MACHINE, **gpu}
    text = render(read_all(tmp_path, run), [])
    assert "# Benchmarks on a GPU" in text
    assert words in text
    assert "rounded to TF32" in text
    assert "What is promised" not in text


def test_a_run_without_a_losing_shape_says_so(tmp_path, run):
    run["benchmarks"] = run["benchmarks"][:5]
    assert "Nowhere: none of the 1 shapes" in render(read_all(tmp_path, run), [])


def test_report_and_plots_are_written(tmp_path, evidence):
    path = write(evidence, tmp_path)
    assert path.name == "cpu.md"
    images = sorted(each.name for each in (tmp_path / "cpu").iterdir())
    assert images == ["scaling.png", "step_shapes.png", "step_speedup.png"]
    assert all(f"(cpu/{image})" in path.read_text(encoding="utf-8") for image in images)
    assert all((tmp_path / "cpu" / image).read_bytes().startswith(b"\x89PNG") for image in images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda records: records.append(copy.deepcopy(records[0])), "2 runs of pytest-benchmark"),
        (lambda records: records.append({"kind": "other"}), "neither pytest-benchmark's JSON"),
        (lambda records: records[1].update(machine={"device": "cuda"}), "another device"),
        (lambda records: records[0]["benchmarks"].pop(0), "lacks the row of the package"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, run, scaling, change, words):
    records = [run, scaling]
    change(records)
    with pytest.raises(ValueError, match=words):
        read_all(tmp_path, *records)
