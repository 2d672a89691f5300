"""`iir-fast compare` as a process: the table, what it keeps, what it resumes, what becomes of a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from iir_fast.app.lock import locked
from iir_fast.comparison import RunResult, read_comparison, run_comparison, tables
from iir_fast.comparison.results import Cost, read_result, run_folder, to_json
from iir_fast.training import RunFolder

BASE = {"train_images": 40, "test_images": 10, "epochs": 1, "classes_per_batch": 4, "images_per_class": 2, "hidden": 8}
ROWS = {"CAM": {"method": "cam"}, "IIR": {}}
# Under a shell's background process SIGINT would be ignored.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from iir_fast.app.cli import main; main(sys.argv[1:])"
)
pytestmark = pytest.mark.slow


def written(folder: Path, **keys: object) -> Path:
    file = folder / f"{len(list(folder.iterdir()))}.yaml"
    file.write_text(yaml.safe_dump({"title": "Tiny", "seeds": 2, "base": BASE, "rows": ROWS, **keys}, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def done(cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A comparison of two rows from two seeds, with refined maps, too, and what it printed."""
    folder = tmp_path_factory.mktemp("compare")
    published = [{"name": "Theirs", "source": "A paper", "max_box_acc_v2": 62.25}]
    file = written(folder, refinements=["none", "guided"], published=published)
    return folder / "out", cli("compare", file, folder / "out", "--jobs", 2).stdout


def test_it_prints_and_writes_one_table(done):
    out, printed = done
    rows = [line.split("|")[1:3] for line in printed.splitlines() if line.startswith("| ")]
    *measured, published = [(name.strip(), map.strip()) for name, map in rows[2:]]
    assert measured == [
        (row, map + refinement)
        for row in ("CAM", "IIR")
        for map in ("CAM", "evidence", "both")
        for refinement in ("", ", guided")
    ]
    assert published == ("Theirs", "published, not measured here")
    assert "\n- Theirs: A paper\n" in printed
    assert printed.count("Best MaxBoxAccV2: ") == printed.count("Best PxAP: ") == 1
    table = (out / "table.md").read_text()
    assert printed in table
    assert "--jobs 2\n" in table
    assert "torch " in table
    assert "images_per_class: 2" in table
    content = json.loads((out / "results.json").read_text())
    assert [row["figures"] for row in content["published"]] == [{"max_box_acc_v2": 62.25}]
    results = content["runs"]
    assert [(run["row"], run["seed"]) for run in results] == [("CAM", 0), ("IIR", 0), ("CAM", 1), ("IIR", 1)]
    for run in results:
        assert run["cost"]["seconds"] > 0
        assert run["cost"]["cpu_seconds"] > 0
        assert 10**8 < run["cost"]["memory_bytes"] < 10**10
        kept = json.loads((out / run["folder"] / "metrics.json").read_text())
        assert run["metrics"]["cam"]["pxap"] == kept["test"]["cam"]["pxap"]
        assert run["metrics"]["cam, guided"]["pxap"] == kept["test, guided"]["cam"]["pxap"]
        assert kept["test, guided"]["cam"]["pxap"] != kept["test"]["cam"]["pxap"]
        assert "accuracy" not in run["metrics"]["cam"]["curve_v1"]


def test_what_is_complete_is_kept_and_a_crash_costs_itself_alone(cli, done):
    out, printed = done
    before = [file.stat().st_mtime_ns for file in sorted(out.glob("runs/*/*/checkpoints/*.pt"))]
    rows = {**ROWS, "broken": {"backbone": "nonsense"}}
    result = cli("compare", written(out.parent, rows=rows, refinements=["none", "guided"]), out, code=1)
    assert "4 of 6 runs are complete" in result.stderr
    assert "| broken (0 of 2 seeds) " in result.stdout
    assert "- broken, seed 1: ValueError: Unknown backbone 'nonsense'" in result.stdout
    assert [line for line in printed.splitlines() if line.startswith("Best")] == [
        line for line in result.stdout.splitlines() if line.startswith("Best")
    ]
    assert before == [file.stat().st_mtime_ns for file in sorted(out.glob("runs/*/*/checkpoints/*.pt"))]
    assert "Traceback" in (out / "runs" / "broken" / "seed0.log").read_text()


def test_a_baseline_is_a_row_of_the_table_and_is_kept(cli, tmp_path):
    rows = {"Gaussian": {"baseline": "center"}, "classifier": {"baseline": "classifier"}}
    file = written(tmp_path, rows=rows, refinements=["none", "grabcut"])
    result = cli("compare", file, tmp_path / "out", code=1)
    lines = [line for line in result.stdout.splitlines() if line.startswith("| Gaussian")]
    assert [[cell.strip() for cell in line.split("|")[1:3]] for line in lines] == [
        ["Gaussian", "center"],
        ["Gaussian", "center, grabcut"],
    ]
    assert all("±" in line for line in lines)
    assert "- classifier, seed 1: ValueError: weights is 'random'; a classifier as it is needs" in result.stdout
    kept = tmp_path / "out" / "runs" / "gaussian" / "centerseed0" / "metrics.json"
    before = kept.stat().st_mtime_ns
    again = cli("compare", file, tmp_path / "out", code=1)
    assert "2 of 4 runs are complete; logs" in again.stderr
    assert kept.stat().st_mtime_ns == before


def test_damaged_files_of_a_run_are_set_aside_and_cost_no_evaluation(tmp_path, capsys):
    comparison = read_comparison(written(tmp_path, maps=["cam"], seeds=1))
    cam, iir = comparison.runs
    for run in (cam, iir):
        folder = run_folder(tmp_path, run)
        folder.open(run.config, "refuse")
        folder.write_metrics({"test": {"cam": {"pxap": 5}}})
        (folder.root / "cost.json").write_text("" if run is cam else '{"seconds": 3}')
    for run in (cam, iir):
        assert read_result(run, tmp_path, comparison) == RunResult(run, {"cam": {"pxap": 5}}, None)
    assert capsys.readouterr().err.count("it is kept as cost.json.damaged-1.") == 2
    sound = {"seconds": 3, "cpu_seconds": 2.5, "memory_bytes": 10, "device": "cpu", "threads": 2}
    file = run_folder(tmp_path, cam).root / "cost.json"
    file.write_text(json.dumps(sound))
    kept = read_result(cam, tmp_path, comparison)
    assert kept.cost == Cost(3.0, 2.5, 10, "cpu", 2)
    assert "| CAM" in tables(comparison, [kept])  # though earlier versions wrote no curves
    assert to_json(comparison, [kept])["runs"][0]["metrics"]["cam"]["pxap"] == 5
    for name, value in {"seconds": "3", "memory_bytes": None, "device": 3, "threads": -1, "cpu_seconds": 1e30}.items():
        file.write_text(json.dumps(sound | {name: value}))
        assert read_result(cam, tmp_path, comparison).cost is None
        assert f"{file} is damaged: {name} is {value!r}; accepted is " in capsys.readouterr().err
    run_folder(tmp_path, iir).metrics.write_text('{"test": {')
    assert read_result(iir, tmp_path, comparison) == RunResult(iir, None, None)
    assert "metrics.json is damaged: " in capsys.readouterr().err


def test_a_second_comparison_in_one_folder_is_refused(tmp_path):
    out = tmp_path / "out"
    with locked(out), pytest.raises(OSError, match="out is in use by process"):
        run_comparison(read_comparison(written(tmp_path)), out)
    assert {file.name for file in out.iterdir()} == {".lock"}


@pytest.mark.parametrize("name", ["results.json", "table.md"])
def test_results_of_something_else_are_left_alone(name, tmp_path):
    file, out = written(tmp_path), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / name).write_text('{"title": "mine"}')
    with pytest.raises(FileExistsError, match="not the folder of a comparison; it is left alone"):
        run_comparison(read_comparison(file), out)
    assert (out / name).read_text() == '{"title": "mine"}'


def test_a_run_of_another_configuration_is_refused(done):
    out, _ = done
    file = written(out.parent, base=BASE | {"epochs": 2})
    with pytest.raises(ValueError, match=r"^CAM, seed 0, in .*: the run to resume .*: epochs was 1 and is 2"):
        run_comparison(read_comparison(file), out)


def test_another_folder_is_left_alone(tmp_path):
    file = written(tmp_path)
    with pytest.raises(FileExistsError, match="not the folder of a comparison; it is left alone"):
        run_comparison(read_comparison(file), tmp_path)
    with pytest.raises(ValueError, match="jobs is 0; accepted is 1 or more"):
        run_comparison(read_comparison(file), tmp_path / "out", jobs=0)


def test_ctrl_c_stops_all_runs_which_resume_and_end_with_the_process_that_started_them(tmp_path):
    file, out = written(tmp_path, seeds=1, base=BASE | {"epochs": 100_000}), tmp_path / "out"
    folders = [RunFolder(out / "runs" / row / "seed0") for row in ("cam", "iir")]

    def wait_for(words: str) -> None:
        deadline = time.monotonic() + 300
        logs = [folder.root.with_suffix(".log") for folder in folders]
        while not all(
            folder.checkpoints.files() and words in log.read_text() for folder, log in zip(folders, logs, strict=True)
        ):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)

    command = [sys.executable, "-c", MAIN, "compare", str(file), str(out), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for("")
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "the same command goes on from here" in errors
    wait_for("resume to go on from there")
    assert "0 of 2 runs are complete." in (out / "table.md").read_text()

    steps = [folder.checkpoints.newest().training["step"] for folder in folders]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for("resumed at step ")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for("resume to go on from there")
    later = [folder.checkpoints.newest().training["step"] for folder in folders]
    assert all(after > before for after, before in zip(later, steps, strict=True))
