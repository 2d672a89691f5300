"""Comparison of training methods: rows x data variants x seeds with the same budget, one table."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.comparison"):
    from iir_fast.comparison.baselines import Baseline
    from iir_fast.comparison.plan import Comparison, PlannedRun, read_comparison
    from iir_fast.comparison.published import METRICS, Published
    from iir_fast.comparison.results import RunResult
    from iir_fast.comparison.run import run_comparison
    from iir_fast.comparison.table import difference_spread, tables, with_spread

__all__ = [
    "METRICS",
    "Baseline",
    "Comparison",
    "PlannedRun",
    "Published",
    "RunResult",
    "difference_spread",
    "read_comparison",
    "run_comparison",
    "tables",
    "with_spread",
]
