"""Comparisons side by side: ``python -m benchmarks.ablation FOLDER NAME=RUN [NAME=RUN ...]``.

RUN is the folder of an ``iir-fast compare``. Rows of the same NAME are rows on the same data: they share a plot
``FOLDER/ablation_NAME.png`` and a column of the tables, which are printed as Markdown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

import matplotlib.pyplot as plt

from benchmarks.plots import plain, save
from iir_fast.comparison import difference_spread
from iir_fast.comparison.table import JUDGED, MAP_NAMES
from iir_fast.models import MapName

REFERENCE = "IIR"
"""The row that all others are held against."""
COLORS: dict[MapName, str] = {"cam": "#0072b2", "evidence": "#d55e00", "both": "#000000"}
"""Colors told apart with any colour vision (Okabe and Ito)."""
Seeds: TypeAlias = dict[int, dict[str, Any]]
"""By seed: a run's metrics by map."""
Results: TypeAlias = dict[str, dict[str, Seeds]]
"""By data and row."""


def read(runs: Sequence[tuple[str, Path]]) -> Results:
    """The complete runs of comparisons.

    Args:
        runs: names and folders; a data variant of a comparison becomes "NAME VARIANT".

    Raises:
        FileNotFoundError: a folder holds no results.
    """
    results: Results = {}
    for name, folder in runs:
        for run in json.loads((folder / "results.json").read_text(encoding="utf-8"))["runs"]:
            if run["metrics"]:
                rows = results.setdefault(" ".join(filter(None, (name, run["data"]))), {})
                rows.setdefault(run["row"], {})[run["seed"]] = run["metrics"]
    return results


def per_seed(seeds: Seeds, map: str, metric: str) -> list[float]:
    """A metric under a localization map, of every seed."""
    return [metrics[map][metric] for _, metrics in sorted(seeds.items())]


def tables(results: Results) -> str:
    """A table for each localization map: rows by data, MaxBoxAccV2 / PxAP, means over the seeds.

    ▲ and ▼ mark what lies above and below `REFERENCE` on the same data by more than the spread of the difference.
    """
    names = list(dict.fromkeys(row for rows in results.values() for row in rows))
    parts = []
    for map, label in MAP_NAMES.items():
        lines = [f"| {label} map | {' | '.join(results)} |", f"|---|{'---:|' * len(results)}"]
        for name in names:
            cells = [_cell(rows, name, map) for rows in results.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cell(rows: Mapping[str, Seeds], name: str, map: str) -> str:
    if name not in rows:
        return ""
    cells = []
    for _, metric in JUDGED:
        values, reference = per_seed(rows[name], map, metric), per_seed(rows[REFERENCE], map, metric)
        gap, spread = mean(values) - mean(reference), difference_spread(values, reference)
        beyond = name != REFERENCE and spread is not None and abs(gap) > spread
        cells.append(f"{mean(values):.1f}{('▲' if gap > 0 else '▼') if beyond else ''}")
    return " / ".join(cells)


def draw(name: str, rows: Mapping[str, Seeds], file: Path) -> None:
    """Mean and spread of every row under every map; a line through the reference's."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 1.2 + 0.38 * len(rows)), sharey=True, layout="constrained")
    for axes, (label, key) in zip(panels, JUDGED, strict=True):
        for offset, (map, color) in zip((-0.22, 0, 0.22), COLORS.items(), strict=True):
            values = [per_seed(seeds, map, key) for seeds in rows.values()]
            axes.errorbar(
                [mean(each) for each in values],
                [place + offset for place in range(len(rows))],
                xerr=[stdev(each) if len(each) > 1 else 0 for each in values],
                fmt="o",
                markersize=4,
                capsize=2,
                color=color,
                label=f"{MAP_NAMES[map]} map",
            )
            axes.axvline(mean(per_seed(rows[REFERENCE], map, key)), color=color, linewidth=0.6, linestyle=":")
        axes.set_xlabel(f"{label}, %")
        plain(axes)
        axes.grid(axis="y", linewidth=0.3)
    panels[0].set_yticks(range(len(rows)), list(rows))
    panels[0].invert_yaxis()
    figure.suptitle(f"{name}: mean and standard deviation over the seeds", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, file)


def main(arguments: Sequence[str]) -> None:
    """Draw and print.

    Raises:
        SystemExit: the arguments are not as the module says.
    """
    named = [argument.partition("=") for argument in arguments[1:]]
    if not named or not all(name and folder for name, _, folder in named):
        raise SystemExit(__doc__)
    results = read([(name, Path(folder)) for name, _, folder in named])
    for name, rows in results.items():
        draw(name, rows, Path(arguments[0]) / f"ablation_{name.replace(' ', '_')}.png")
    print(tables(results))


if __name__ == "__main__":
    main(sys.argv[1:])
