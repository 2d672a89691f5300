"""Tables for a terminal, in Markdown and in CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

    from iir_fast.evaluation import BoxCurve, Metrics, Peak
    from iir_fast.models import MapName

PAPER = (
    *("Top-1 Loc", "Top-5 Loc", "GT-known Loc", "MaxBoxAcc", "MaxBoxAccV2", "IoU 0.3", "IoU 0.5", "IoU 0.7"),
    *("PxAP", "pIoU", "Top-1 Cls", "Top-5 Cls"),
)
"""Columns of a paper's row."""
NOTHING = "-"
"""In place of a figure that the data do not allow."""


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
    """Make a table of one split with a column per map: each metric the data allow, in percent with its threshold."""
    first = next(iter(metrics.values()))
    rows: dict[str, list[str]] = {}
    for each in metrics.values():
        for figure in _figures(each):
            tau = f" ({figure.threshold})" if figure.threshold else ""
            rows.setdefault(figure.name, [figure.label]).append(figure.text + tau)
    rows = {name: row for name, row in rows.items() if set(row[1:]) != {NOTHING}}
    return tabulate(("map", *metrics), rows.values(), f"{_title(first)}: % (threshold)", _origins(first))


def paper_table(
    metrics: Mapping[str, Metrics] | Mapping[MapName, Metrics], backbone: str | None = None, method: str | None = None
) -> str:
    """Write a row per map of one split as papers have it, in Markdown, and below it each threshold and the split that
    chose it; the name of a method goes before that of the map."""
    first, rows, origins = next(iter(metrics.values())), [], set()
    for name, each in metrics.items():
        found = {figure.name: figure for figure in _figures(each)}
        figures = [found.get(column, _Figure(column, None)) for column in PAPER]
        label = f"{method}, {name} map" if method else name
        rows.append([backbone or "-", label, *(figure.text for figure in figures)])
        rows.append(["", "threshold", *(figure.threshold for figure in figures)])
        rows.append(["", "chosen on", *(figure.chosen_on for figure in figures)])
        origins |= {figure.chosen_on for figure in figures}
    parts = [f"{_title(first)}, in %:", markdown_table(("backbone", "method", *PAPER), rows, text_columns=2)]
    if first.split in origins:
        parts.append(f"What is chosen on {first.split} is chosen on the very images that it is reported on.")
    return "\n\n".join(parts)


def metrics_csv(metrics: Mapping[str, Metrics] | Mapping[MapName, Metrics]) -> str:
    """Write all that `Metrics.to_dict` says, a line per figure and a column per map, with every digit.

    A figure is named by its place there, e.g. ``piou.best`` or, for the second IoU at the third threshold,
    ``curves_v2.1.accuracy.2``. What the data does not allow is left out, or empty where it allows it of another map. An
    apostrophe goes before a text that a spreadsheet would run.
    """
    columns = [dict(_flat(each.to_dict())) for each in metrics.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    lines = csv.writer(text := StringIO(), lineterminator="\n")
    lines.writerow(map(inert, ["figure", *metrics]))
    lines.writerows(map(inert, [name, *(column.get(name) for column in columns)]) for name in names)
    return text.getvalue()


def inert(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def threshold_text(threshold: float, step: float = 0.01) -> str:
    """Write a threshold with the digits that its step needs, two at least, and more where it is off that grid."""
    return f"{threshold:.{max(2, _decimals(step), _decimals(threshold))}f}"


def _decimals(number: float) -> int:
    return len(f"{number:.6f}".rstrip("0").partition(".")[2])


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif value is not None:
        yield name, value


def _title(metrics: Metrics) -> str:
    without = metrics.images - metrics.with_boxes if metrics.max_box_acc is not None else 0
    return f"{metrics.split}, {metrics.images} images" + (f", {metrics.with_boxes} with boxes" if without else "")


def _origins(metrics: Metrics) -> str | None:
    """Say which splits chose the thresholds."""
    rule = "the best threshold on the evaluated split itself, as"
    sentences = []
    if metrics.fixed_threshold:
        sentences.append(f"MaxBoxAcc, V1 and V2, takes {rule} its protocol has it.")
    if metrics.piou:
        sentences.append(f"pIoU and mIoU take {rule} peaks do.")
    if metrics.fixed_threshold:
        sentences.append(f"Threshold of GT-known and Top-k chosen on: {metrics.fixed_threshold_origin}.")
        sentences.append("No box: each image cut at a threshold of its own, which no box has chosen.")
    return " ".join(sentences) or None


class _Figure(NamedTuple):
    """A metric in percent, None where there is none, with its threshold and the split that chose it, or two blanks."""

    name: str
    value: float | None
    threshold: str = ""
    chosen_on: str = ""

    @property
    def text(self) -> str:
        return NOTHING if self.value is None else f"{self.value:.1f}"

    @property
    def label(self) -> str:
        return f"  {self.name}" if self.name.startswith("IoU") else self.name


def _figures(metrics: Metrics) -> list[_Figure]:
    fixed, curve = metrics.fixed_threshold, metrics.curve_v1

    def peak(name: str, found: BoxCurve | Peak | None) -> _Figure:
        if found is None:
            return _Figure(name, None)
        return _Figure(name, found.best, threshold_text(found.threshold, metrics.step), metrics.split)

    def at_fixed(name: str, value: float | None) -> _Figure:
        if value is None or fixed is None:
            return _Figure(name, value)
        return _Figure(name, value, threshold_text(fixed.value, metrics.step), fixed.chosen_on)

    return [
        _Figure("GT-known Loc, no box", metrics.no_box_gt_known_loc),
        _Figure("Top-1 Loc, no box", metrics.no_box_top1_loc),
        _Figure("Top-5 Loc, no box", metrics.no_box_top5_loc),
        at_fixed("GT-known Loc", metrics.gt_known_loc),
        at_fixed("Top-1 Loc", metrics.top1_loc),
        at_fixed("Top-5 Loc", metrics.top5_loc),
        _Figure("MaxBoxAccV2", metrics.max_box_acc_v2),
        *(peak(f"IoU {each.delta}", each) for each in metrics.curves_v2),
        peak("MaxBoxAcc", curve),
        _Figure("PxAP", metrics.pxap),
        peak("pIoU", metrics.piou),
        peak("mIoU", metrics.miou),
        _Figure("Top-1 Cls", metrics.top1_accuracy),
        _Figure("Top-5 Cls", metrics.top5_accuracy),
        *(at_fixed(f"error: {kind}", value) for kind, value in (metrics.errors or {}).items()),
    ]
