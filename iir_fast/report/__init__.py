"""The report of a run: one page to look at, in any browser and without a server."""

from iir_fast.extras import needs_system

with needs_system("iir_fast.report"):
    from iir_fast.report.run import write_report

__all__ = ["write_report"]
