"""Carrying out a comparison: what is missing is run, what is there is kept, the tables follow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import torch

from iir_fast.app.files import PARTS, read_object, remove_leftovers, set_aside, write_whole
from iir_fast.app.lock import LOCK, OWNER, locked
from iir_fast.comparison.plan import Comparison
from iir_fast.comparison.results import RunResult, read_result, run_folder, to_json
from iir_fast.comparison.table import record
from iir_fast.comparison.worker import Task, run_workers
from iir_fast.training import Interrupted

RESULTS, TABLE = "results.json", "table.md"


def run_comparison(
    comparison: Comparison,
    root: Path,
    jobs: int = 1,
    command: str = "",
    log: Callable[[str], None] = lambda line: None,
) -> list[RunResult]:
    """Run what is not there yet, each run in a process of its own.

    After every run `root` holds `results.json`, the metrics of every run so far, and `table.md`, the tables with all
    that is needed to make them again. Runs that are complete are not repeated, interrupted and failed ones resume.

    Args:
        comparison: what to run.
        root: folder of the comparison; a new one, or one of an earlier call.
        jobs: runs at a time, 1 or more; each has torch's number of threads here, divided by `jobs`. The sums of
            another number of threads differ in their last bits, so tables say the number.
        command: what `table.md` says made it.
        log: called with a line for everything that happens.

    Returns:
        What became of every planned run; a run that failed says why, and does not stop the others.

    Raises:
        ValueError: `jobs` is below 1, or a run that is there was configured differently.
        FileExistsError: `root` is a folder of something else.
        OSError: another process carries out a comparison there.
        Interrupted: Ctrl-C came; all runs have stopped and can be resumed.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; accepted is 1 or more.")
    _check_root(root)
    for run in comparison.runs:
        folder = run_folder(root, run)
        try:
            folder.check(run.config, "resume")
        except ValueError as error:
            raise ValueError(f"{run.name}, in {folder.root}: {error}") from error
    with locked(root):
        return _carry_out(comparison, root, jobs, command, log)


def _carry_out(
    comparison: Comparison, root: Path, jobs: int, command: str, log: Callable[[str], None]
) -> list[RunResult]:
    remove_leftovers(root)
    results = [read_result(run, root, comparison) for run in comparison.runs]
    open_runs = [index for index, result in enumerate(results) if result.metrics is None]
    threads = max(1, torch.get_num_threads() // jobs)
    tasks = [
        Task(
            str(run_folder(root, run).root),
            run.config.to_yaml(),
            comparison.maps_of(run.row),
            comparison.refinements,
            threads,
            comparison.baselines.get(run.row),
        )
        for run in (comparison.runs[index] for index in open_runs)
    ]
    log(f"{len(results) - len(tasks)} of {len(results)} runs are complete; logs stand beside the runs in {root}.")
    started = time.monotonic()

    def write() -> None:
        write_whole(root / RESULTS, json.dumps(to_json(comparison, results), indent=1) + "\n")
        write_whole(root / TABLE, record(comparison, results, command))

    write()
    try:
        with closing(run_workers(tasks, jobs)) as ended:
            for done, (number, failure) in enumerate(ended, 1):
                run = comparison.runs[open_runs[number]]
                results[open_runs[number]] = read_result(run, root, comparison, failure)
                write()
                left = timedelta(seconds=round((time.monotonic() - started) * (len(tasks) - done) / done))
                outcome = f"failed: {failure}" if failure else "done"
                log(f"{done} of {len(tasks)}, about {left} left: {run.name} {outcome}")
    except KeyboardInterrupt:
        raise Interrupted("stopped; every run can be resumed, the same command goes on from here.") from None
    return results


def _check_root(root: Path) -> None:
    """Raise unless a folder is a new one or holds a comparison, known by what its results.json says."""
    if not root.exists():
        return
    names = {file.name for file in root.iterdir()} - {LOCK, OWNER} - {file.name for file in root.glob(PARTS)}
    ours = not names or ("runs" in names and TABLE not in names)
    if RESULTS in names:
        try:
            ours = read_object(root / RESULTS).keys() >= {"title", "maps", "runs"}
        except ValueError as error:
            if ours := "runs" in names:
                set_aside(root / RESULTS, error)
    if not ours:
        raise FileExistsError(f"output folder {root} exists and is not the folder of a comparison; it is left alone.")
