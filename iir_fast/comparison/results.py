"""What the folder of a comparison holds of its runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from iir_fast.app.files import read_object, set_aside
from iir_fast.comparison.plan import Comparison, PlannedRun
from iir_fast.evaluation import refined_name
from iir_fast.training import RunFolder, from_options

SPLIT = "test"
"""What every run is evaluated on."""
BELIEVED = 1e18
"""No run takes so many seconds or bytes."""


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: training and evaluation, summed over the pieces of an interrupted run.
        cpu_seconds: the same of the processor, all threads; other work on the machine hardly changes it.
        memory_bytes: peak of the process's resident memory, or of the memory that tensors took on a CUDA device; of
            the most expensive piece.
        device: type of the device, "cpu" or "cuda".
        threads: torch's threads on the CPU.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    device: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("seconds", "cpu_seconds", "memory_bytes", "threads"):
            if not 0 <= (value := getattr(self, name)) < BELIEVED:
                raise ValueError(f"{name} is {value}; accepted is a number of 0 or more, and below {BELIEVED:g}.")


@dataclass(frozen=True)
class RunResult:
    """One planned run.

    Attributes:
        run: the run.
        metrics: for every map and refinement, by their `refined_name`, what `Metrics.to_dict` says; None unless the run
            is complete.
        cost: what it took; None unless the run is complete, and where that is lost.
        failure: why it is not complete, if it failed.
    """

    run: PlannedRun
    metrics: dict[str, dict[str, Any]] | None
    cost: Cost | None
    failure: str = ""


def run_folder(root: Path, run: PlannedRun) -> RunFolder:
    """Name the folder of a run below that of its comparison."""
    return RunFolder(root / "runs" / run.folder)


def cost_file(folder: RunFolder) -> Path:
    """Name the file beside a run's results that keeps its `Cost` so far, from the end of its first piece on."""
    return folder.root / "cost.json"


def read_cost(folder: RunFolder) -> Cost | None:
    """Read what a run has taken so far; None before its first piece ended, and where the file is damaged: it is set
    aside and said so."""
    file = cost_file(folder)
    if not file.is_file():
        return None
    try:
        content = read_object(file)
        if content.keys() != asdict(Cost()).keys():
            raise ValueError(f"{file} is damaged: it does not hold what a run took")
        return from_options(Cost, content, f"{file} is damaged")
    except ValueError as error:
        set_aside(file, error)
        return None


def read_result(run: PlannedRun, root: Path, comparison: Comparison, failure: str = "") -> RunResult:
    """Read what a comparison's folder holds of a run.

    Args:
        run: the run.
        root: the comparison's folder.
        comparison: says which maps a complete run has been evaluated with, and how refined.
        failure: why the run's process failed; empty if it did not, or has not run.
    """
    folder = run_folder(root, run)
    metrics, cost = folder.sound_metrics(), read_cost(folder)
    found = {
        refined_name(map, refinement): metrics.get(refined_name(SPLIT, refinement), {}).get(map)
        for map, refinement in product(comparison.maps_of(run.row), comparison.refinements)
    }
    if None in found.values():
        return RunResult(run, None, None, failure)
    return RunResult(run, found, cost, failure)


def to_json(comparison: Comparison, results: list[RunResult]) -> dict[str, Any]:
    """Give every run's metrics and thresholds; the curves behind them stay in the runs' own `metrics.json`."""
    return {
        "title": comparison.title,
        "maps": comparison.maps,
        "refinements": comparison.refinements,
        "published": [asdict(each) for each in comparison.published],
        "runs": [
            {
                "row": result.run.row,
                "data": result.run.variant,
                "seed": result.run.seed,
                "folder": str(Path("runs") / result.run.folder),
                "failure": result.failure or None,
                "cost": result.cost and asdict(result.cost),
                "metrics": result.metrics and {map: _without_curves(each) for map, each in result.metrics.items()},
            }
            for result in results
        ],
    }


def _without_curves(metrics: dict[str, Any]) -> dict[str, Any]:
    def best(curve: dict[str, Any] | None) -> dict[str, Any] | None:
        return curve and {name: value for name, value in curve.items() if name != "accuracy"}

    curve_v1, curves_v2 = metrics.get("curve_v1"), metrics.get("curves_v2", ())
    return metrics | {"curve_v1": best(curve_v1), "curves_v2": [*map(best, curves_v2)]}
