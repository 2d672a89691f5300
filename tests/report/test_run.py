"""From a run's folder to its report: what is evaluated, shown and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from iir_fast.report import write_report
from iir_fast.training import RunFolder, TrainConfig


def overview(page: Path) -> dict[str, Any]:
    return json.loads(re.search(r'iirPart\("overview",(.*)\);\n</script>', page.read_text())[1])


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_folder, tmp_path / "run <1>")


def test_missing_evaluations_are_made_and_kept_ones_shown(run):
    page = write_report(run, maps=("cam",))
    assert page == run / "report.html"
    kept = RunFolder(run).read_metrics()
    assert set(kept["test"]) == {"cam"}
    kept["test"]["cam"]["pxap"] = 12.5
    RunFolder(run).write_metrics(kept)
    shown = overview(write_report(run, maps=("cam", "both")))
    assert set(RunFolder(run).read_metrics()["test"]) == {"cam", "both"}
    assert shown["metrics"]["cam"]["pxap"] == 12.5
    assert (shown["run"], shown["split"], shown["images"]) == ("run <1>", "test", 40)
    assert shown["maps"] == ["cam", "both"]
    assert len(shown["classes"]) == 4
    assert (run / shown["originals"] / shown["index"]["ids"][1]).is_file()
    assert shown["index"]["sizes"][:3] == [[64, 64], [96, 64], [300, 420]]


def test_the_slider_stops_at_the_evaluations_own_thresholds(run):
    write_report(run, maps=("cam",))
    content = RunFolder(run).read_metrics()
    content["test"]["cam"]["fixed_threshold"] = {"value": 0.1234, "chosen_on": "val"}
    RunFolder(run).write_metrics(content)
    shown = overview(write_report(run, maps=("cam",), limit=1))
    assert len(shown["taus"]) == 101
    assert shown["taus"] == sorted(shown["taus"])
    assert shown["taus"][shown["start"]["cam"]] == 0.1234


def test_limit_spreads_over_the_split(run):
    shown = overview(write_report(run, maps=("cam",), limit=4, out=run / "few.html"))
    assert [name[:9] for name in shown["index"]["ids"]] == ["images/00", "images/10", "images/20", "images/30"]
    assert shown["images"] == 40
    assert (run / "few.html").is_file()


def test_the_same_run_gives_the_same_bytes(run):
    first = write_report(run, maps=("cam",)).read_bytes()
    assert write_report(run, maps=("cam",)).read_bytes() == first


def test_what_is_not_accepted_is_named(run, tmp_path):
    with pytest.raises(ValueError, match="limit is 0; accepted is 1 or more"):
        write_report(run, limit=0)
    with pytest.raises(ValueError, match="maps is empty"):
        write_report(run, maps=())
    with pytest.raises(ValueError, match=r"out is .*report; a file that ends in \.html is accepted"):
        write_report(run, out=tmp_path / "report")
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.html exists and is no report"):
        write_report(run, out=tmp_path / "mine.html")
    write_report(run, maps=("cam",), limit=1)
    kept = RunFolder(run).read_metrics()
    kept["test"]["cam"]["images"] = 18
    RunFolder(run).write_metrics(kept)
    with pytest.raises(ValueError, match="cam maps of 18 test images, and the data have 40; evaluate the run again"):
        write_report(run, maps=("cam",))


def test_other_data_take_the_place_of_nothing(run, tmp_path):
    own = TrainConfig.from_yaml(RunFolder(run).config.read_text()).data
    page = write_report(run, maps=("cam",), limit=1)
    before = RunFolder(run).read_metrics()["test"], page.read_bytes()
    assert before[0]["cam"]["data"] == own
    other = str(shutil.copytree(own, tmp_path / "other"))
    lines = (tmp_path / "other" / "test.csv").read_text().splitlines()
    (tmp_path / "other" / "test.csv").write_text("\n".join(lines[:20]) + "\n")
    with pytest.raises(ValueError, match=f"out is not given, .* name a page for those of {other}"):
        write_report(run, maps=("cam",), data=other)
    with pytest.raises(ValueError, match=r"name a page for those of 'a\\nb'\.$"):
        write_report(run, maps=("cam",), data="a\nb")
    shown = overview(write_report(run, maps=("cam",), data=other, out=tmp_path / "other.html"))
    assert (shown["split"], shown["images"], shown["metrics"]["cam"]["data"]) == (f"test of {other}", 18, other)
    assert shown["metrics"]["cam"]["fixed_threshold"]["chosen_on"] == f"test of {other}, the split it is reported on"
    assert (RunFolder(run).read_metrics()["test"], page.read_bytes()) == before
    # By any name, the run's own data are its own.
    assert write_report(run, maps=("cam",), limit=1, data=os.path.relpath(own)) == page
