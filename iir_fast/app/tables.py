"""Metrics as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from iir_fast.evaluation import Metrics
from iir_fast.models import MapKind


def metrics_table(metrics: Mapping[str, Metrics] | Mapping[MapKind, Metrics]) -> Table:
    """A column per map; every figure in percent with the threshold it was taken at.

    Args:
        metrics: name of the map -> its metrics, all of one split.
    """
    first = next(iter(metrics.values()))
    table = Table(
        title=f"{first.split}, {first.images} images: % (threshold)",
        caption="MaxBoxAcc, V1 and V2, takes the best threshold on the evaluated split itself, as its protocol has it. "
        f"Threshold of GT-known and Top-k chosen on: {first.fixed_threshold_origin}."
        if first.fixed_threshold
        else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("map")
    for name in metrics:
        table.add_column(name, justify="right")
    rows: dict[str, list[str]] = {}
    for each in metrics.values():
        for name, value in _figures(each).items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def _figures(metrics: Metrics) -> dict[str, str]:
    v1 = metrics.curve_v1.threshold if metrics.curve_v1 else None
    fixed = metrics.fixed_threshold.value if metrics.fixed_threshold else None
    found = {"MaxBoxAccV2": _figure(metrics.max_box_acc_v2)}
    for curve in metrics.curves_v2:
        found[f"  IoU {curve.delta}"] = _figure(curve.best, curve.threshold)
    found["MaxBoxAcc"] = _figure(metrics.max_box_acc, v1)
    found["PxAP"] = _figure(metrics.pxap)
    found["GT-known Loc"] = _figure(metrics.gt_known_loc, fixed)
    found["Top-1 Loc"] = _figure(metrics.top1_loc, fixed)
    found["Top-5 Loc"] = _figure(metrics.top5_loc, fixed)
    return found


def _figure(value: float | None, threshold: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if threshold is None else f"{value:.1f} ({threshold:.2f})"
