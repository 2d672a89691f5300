"""Figures of several seeds: their mean, their spread, and what a difference is worth."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from statistics import mean, stdev

FIGURES = (("MaxBoxAccV2", "max_box_acc_v2"), ("MaxBoxAcc", "max_box_acc"), ("PxAP", "pxap"), ("Top-1 Loc", "top1_loc"))
"""Columns of a table of results, and the names of the figures in `Metrics`."""


def with_spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation over the seeds, of one seed its figure alone, with one decimal.

    Args:
        values: one figure for each seed, at least one.

    Returns:
        Such as "41.0 ± 0.7".
    """
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference_spread(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Standard deviation of the difference of two runs of independent seeds: sqrt(s1^2 + s2^2).

    Args:
        one: a figure for each seed of one row.
        other: the same of another row.

    Returns:
        In the unit of the figures; None where a row has one seed only.
    """
    return hypot(stdev(one), stdev(other)) if min(len(one), len(other)) > 1 else None
