"""The tables of a comparison, in Markdown that reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import hypot
from statistics import mean, median, stdev
from typing import Any

from iir_fast.app.machine import describe_machine
from iir_fast.app.tables import markdown_table
from iir_fast.comparison.plan import Comparison
from iir_fast.comparison.published import COLUMNS, Published
from iir_fast.comparison.results import Cost, RunResult
from iir_fast.evaluation import refined_name
from iir_fast.models import MapName

MAP_NAMES: dict[MapName, str] = {"cam": "CAM", "evidence": "evidence", "both": "both"}
JUDGED = (("MaxBoxAccV2", "max_box_acc_v2"), ("PxAP", "pxap"))
MISSING = "-"
PUBLISHED = "published, not measured here"


def with_spread(values: Sequence[float]) -> str:
    """Write mean ± sample standard deviation over the seeds, of one seed its metric alone, with one decimal.

    Args:
        values: one metric for each seed, at least one.

    Returns:
        Such as "41.0 ± 0.7".
    """
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference_spread(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Compute the standard deviation of the difference of two rows with independent seeds: sqrt(s1^2 + s2^2).

    Args:
        one: a metric for each seed of one row.
        other: the same of another row.

    Returns:
        In the unit of the metric; None where a row has one seed only.
    """
    return hypot(stdev(one), stdev(other)) if min(len(one), len(other)) > 1 else None


@dataclass(frozen=True)
class Entry:
    """A row of a table: one row of the comparison under one localization map, over the seeds that are complete.

    Attributes:
        row: the row's name.
        map: the map's, and that of its refinement.
        metrics: of each seed.
        costs: of each seed.
    """

    row: str
    map: str
    metrics: tuple[dict[str, Any], ...]
    costs: tuple[Cost, ...]

    @property
    def name(self) -> str:
        return f"{self.row}, {self.map} map"

    def values(self, key: str) -> list[float]:
        """Give a metric of every seed; none where the data or the version that ran does not have it, or no seed is
        complete."""
        values = [each.get(key) for each in self.metrics]
        return [] if None in values else [value for value in values if value is not None]


def tables(comparison: Comparison, results: Sequence[RunResult]) -> str:
    """Make a table for each data variant with a sentence on its best rows, then what failed and what the columns mean.

    Args:
        comparison: what was planned.
        results: of the runs that are there, failed ones included.

    Returns:
        Markdown.
    """
    parts = []
    for variant in comparison.variants:
        entries = [entry for row in comparison.rows for entry in _entries(comparison, results, row, variant)]
        if variant:
            parts.append(f"## {variant}")
        published = [each for each in comparison.published if each.variant == variant]
        parts.append(_table(entries, len(comparison.seeds), published))
        if published:
            sources = [f"- {each.name}: {each.source}" for each in published]
            parts.append("\n".join([f"Sources of what is {PUBLISHED}:", "", *sources]))
        parts += [_verdict(entries, *judged) for judged in JUDGED]
    failed = [f"- {result.run.name}: {result.failure}" for result in results if result.failure]
    if failed:
        parts.append("\n".join(["Failed:", "", *failed]))
    parts.append(_legend(comparison, results))
    return "\n\n".join(parts) + "\n"


def record(comparison: Comparison, results: Sequence[RunResult], command: str) -> str:
    """Write the tables with all that is needed to make them again: command, machine, versions, the YAML."""
    made = f"```\n{command}\n```\n\nOn {describe_machine()}.\n\n```yaml\n{comparison.text.strip()}\n```\n"
    return f"# {comparison.title}\n\n{tables(comparison, results)}\n## How it was made\n\n{made}"


def _verdict(entries: Sequence[Entry], name: str, key: str) -> str:
    """Say which row is best, by how much the next one is behind, and the next one of another method.

    Rows whose names start with the same word are taken for variants of one method.
    """
    ranked = sorted((entry for entry in entries if entry.values(key)), key=lambda entry: -mean(entry.values(key)))
    if not ranked:
        return f"Best {name}: none, no run says it."
    best = ranked[0]
    sentence = f"Best {name}: {best.name}, {with_spread(best.values(key))}"
    others = [entry for entry in ranked if entry.row != best.row]
    method = best.row.split()[0]
    rivals = [entry for entry in others if entry.row.split()[0] != method]
    if others:
        sentence += f"; next {_behind(others[0], best, key)}"
    if rivals and rivals[0] is not others[0]:
        sentence += f"; best that is not {method}: {_behind(rivals[0], best, key)}"
    return f"{sentence}."


def _behind(entry: Entry, best: Entry, key: str) -> str:
    one, other = best.values(key), entry.values(key)
    gap, spread = mean(one) - mean(other), difference_spread(one, other)
    if spread is None:
        worth = "one seed, no spread"
    else:
        times = f" ({gap / spread:.1f} times)" if spread else ""
        worth = f"{'beyond' if gap > spread else 'within'} the spread of {spread:.1f}{times}"
    return f"{entry.name}, {with_spread(other)}, {gap:.1f} behind, {worth}"


def _entries(comparison: Comparison, results: Sequence[RunResult], row: str, variant: str) -> list[Entry]:
    runs = [result for result in results if (result.run.row, result.run.variant) == (row, variant)]
    costs = tuple(result.cost for result in runs if result.cost)
    return [
        Entry(
            row,
            refined_name("center" if comparison.baselines.get(row) == "center" else MAP_NAMES[map], refinement),
            tuple(result.metrics[refined_name(map, refinement)] for result in runs if result.metrics),
            costs,
        )
        for map, refinement in product(comparison.maps_of(row), comparison.refinements)
    ]


def _table(entries: Sequence[Entry], seeds: int, published: Sequence[Published]) -> str:
    means = {key: [mean(entry.values(key)) for entry in entries if entry.values(key)] for _, key in COLUMNS}
    header = ["method", "map", *(name for name, _ in COLUMNS), "τ of V2", "τ", "time", "CPU", "memory"]
    rows = []
    for entry in entries:
        complete = len(entry.metrics)
        name = entry.row if complete == seeds else f"{entry.row} ({complete} of {seeds} seeds)"
        metrics = [_metric(entry.values(key), max(means[key], default=0.0)) for _, key in COLUMNS]
        rows.append([name, entry.map, *metrics, *_thresholds(entry), *_costs(entry)])
    for each in published:
        figures = [f"{each.figures[key]:g}" if key in each.figures else MISSING for _, key in COLUMNS]
        rows.append([each.name, PUBLISHED, *figures, *[MISSING] * (len(header) - 2 - len(COLUMNS))])
    return markdown_table(header, rows, text_columns=2)


def _metric(values: Sequence[float], best: float) -> str:
    if not values:
        return MISSING
    # Bold by what is printed: nobody can tell two equal figures apart.
    return f"**{with_spread(values)}**" if f"{mean(values):.1f}" == f"{best:.1f}" else with_spread(values)


def _thresholds(entry: Entry) -> tuple[str, str]:
    curves_v2 = [[curve["threshold"] for curve in each.get("curves_v2", ())] for each in entry.metrics]
    curves_v1 = [each["curve_v1"]["threshold"] for each in entry.metrics if each.get("curve_v1")]
    v2 = " ".join(f"{mean(taus):.2f}" for taus in zip(*curves_v2, strict=False))
    return v2 or MISSING, f"{mean(curves_v1):.2f}" if curves_v1 else MISSING


def _costs(entry: Entry) -> tuple[str, str, str]:
    if not entry.costs:
        return MISSING, MISSING, MISSING
    seconds, cpu_seconds = (median(getattr(cost, name) for cost in entry.costs) for name in ("seconds", "cpu_seconds"))
    memory = median(cost.memory_bytes for cost in entry.costs)
    return _duration(seconds), _duration(cpu_seconds), f"{memory / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _legend(comparison: Comparison, results: Sequence[RunResult]) -> str:
    costs = [result.cost for result in results if result.cost]
    seeds = len(comparison.seeds)
    spread = f"mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "one seed, no spread"
    threads = ", ".join(map(str, sorted({cost.threads for cost in costs}))) or MISSING
    memory = "what tensors take on the GPU" if any(cost.device == "cuda" for cost in costs) else "a run's process"
    sentences = [
        f"Figures in %, {spread}; the best of a column in bold.",
        "No box: GT-known Loc with each image cut at a threshold of its own, which no box has chosen.",
        "A difference is beyond the spread if it exceeds sqrt(s1² + s2²) of the two standard deviations.",
        "τ: mean of the best thresholds, of MaxBoxAccV2 at IoU 0.3, 0.5, 0.7 and of MaxBoxAcc, chosen on the test",
        "split itself, as their protocol has it. Time: training and evaluation of one run, by the clock and by the",
        f"processor; memory: peak of {memory}; all medians, so that the run that fills the cache of features does not",
        f"count. Threads per run: {threads}.",
    ]
    complete = sum(result.metrics is not None for result in results)
    if complete < len(results):
        sentences.insert(0, f"{complete} of {len(results)} runs are complete.")
    return "\n".join(sentences)
