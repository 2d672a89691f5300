"""Tables for a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from iir_fast.evaluation import Metrics
    from iir_fast.models import MapName


def tabulate(
    header: Sequence[str], rows: Iterable[Sequence[str]], title: str, caption: str | None = None, text_columns: int = 1
) -> Table:
    """Make a table whose first columns are text, to the left, and whose others are figures, to the right."""
    from rich.table import Table  # not above: Markdown is text

    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < text_columns else "right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """Write a table likewise in Markdown, its columns wide enough to read as well in a terminal."""
    columns = []
    for number, (name, *cells) in enumerate(zip(header, *rows, strict=True)):
        width = max(map(len, (name, *cells)))
        justify, rule = (str.ljust, "-" * width) if number < text_columns else (str.rjust, "-" * (width - 1) + ":")
        columns.append([justify(name, width), rule, *(justify(cell, width) for cell in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))


def metrics_table(metrics: Mapping[str, Metrics] | Mapping[MapName, Metrics]) -> Table:
    """Make a table with a column per map; every metric in percent with the threshold it was taken at.

    Args:
        metrics: name of the map -> its metrics, all of one split.
    """
    first = next(iter(metrics.values()))
    caption = (
        "MaxBoxAcc, V1 and V2, takes the best threshold on the evaluated split itself, as its protocol has it. "
        f"Threshold of GT-known and Top-k chosen on: {first.fixed_threshold_origin}. "
        "No box: each image cut at a threshold of its own, which its map alone has chosen."
    )
    rows: dict[str, list[str]] = {}
    for each in metrics.values():
        for name, value in _metrics(each):
            rows.setdefault(name, [name]).append(value)
    return tabulate(
        ("map", *metrics),
        rows.values(),
        f"{first.split}, {_count(first)}: % (threshold)",
        caption if first.fixed_threshold else None,
    )


def _count(metrics: Metrics) -> str:
    without = metrics.images - metrics.with_boxes if metrics.max_box_acc is not None else 0
    return f"{metrics.images} images" + (f", {metrics.with_boxes} with boxes" if without else "")


def _metrics(metrics: Metrics) -> list[tuple[str, str]]:
    v1 = metrics.curve_v1.threshold if metrics.curve_v1 else None
    fixed = metrics.fixed_threshold.value if metrics.fixed_threshold else None
    return [
        ("GT-known Loc, no box", _percent(metrics.no_box_gt_known_loc)),
        ("Top-1 Loc, no box", _percent(metrics.no_box_top1_loc)),
        ("Top-5 Loc, no box", _percent(metrics.no_box_top5_loc)),
        ("GT-known Loc", _percent(metrics.gt_known_loc, fixed)),
        ("Top-1 Loc", _percent(metrics.top1_loc, fixed)),
        ("Top-5 Loc", _percent(metrics.top5_loc, fixed)),
        ("MaxBoxAccV2", _percent(metrics.max_box_acc_v2)),
        *((f"  IoU {curve.delta}", _percent(curve.best, curve.threshold)) for curve in metrics.curves_v2),
        ("MaxBoxAcc", _percent(metrics.max_box_acc, v1)),
        ("PxAP", _percent(metrics.pxap)),
    ]


def _percent(value: float | None, threshold: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if threshold is None else f"{value:.1f} ({threshold:.2f})"
