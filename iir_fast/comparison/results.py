"""What became of the runs of a comparison."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iir_fast.comparison.plan import Comparison, PlannedRun
from iir_fast.comparison.worker import Cost, read_cost, read_metrics
from iir_fast.models import MapKind
from iir_fast.training import RunFolder


@dataclass(frozen=True)
class RunResult:
    """One planned run.

    Attributes:
        run: the run.
        metrics: for every map what `Metrics.to_dict` says; None unless the run is complete.
        cost: what it took; None unless the run is complete.
        failure: why it is not complete, if it failed.
    """

    run: PlannedRun
    metrics: dict[MapKind, dict[str, Any]] | None
    cost: Cost | None
    failure: str = ""


def read_result(run: PlannedRun, root: Path, maps: tuple[MapKind, ...], failure: str = "") -> RunResult:
    """What a comparison's folder holds of a run.

    Args:
        run: the run.
        root: the comparison's folder.
        maps: the localization maps that a complete run has been evaluated with.
        failure: why the run's process failed; empty if it did not, or has not run.
    """
    folder = RunFolder(root / "runs" / run.folder)
    metrics = read_metrics(folder, maps)
    return RunResult(run, metrics, read_cost(folder) if metrics else None, failure)


def to_json(comparison: Comparison, results: list[RunResult]) -> dict[str, Any]:
    """Every run's figures and thresholds; the curves behind them stay in the runs' own `metrics.json`."""
    return {
        "title": comparison.title,
        "maps": comparison.maps,
        "runs": [
            {
                "row": result.run.row,
                "data": result.run.variant,
                "seed": result.run.seed,
                "folder": str(Path("runs") / result.run.folder),
                "failure": result.failure or None,
                "cost": result.cost and asdict(result.cost),
                "metrics": result.metrics and {kind: _figures(each) for kind, each in result.metrics.items()},
            }
            for result in results
        ],
    }


def _figures(metrics: dict[str, Any]) -> dict[str, Any]:
    def without_curve(curve: dict[str, Any] | None) -> dict[str, Any] | None:
        return curve and {name: value for name, value in curve.items() if name != "accuracy"}

    curves = {"curve_v1": without_curve(metrics["curve_v1"]), "curves_v2": [*map(without_curve, metrics["curves_v2"])]}
    return metrics | curves
