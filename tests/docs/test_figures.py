"""Figures that the documentation repeats are those of the files they come from."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_counted_traffic_is_that_of_the_results():
    page, results = ((ROOT / name).read_text() for name in ("docs/kernels.md", "benchmarks/results/traffic.md"))
    quoted = re.findall(r"^\| (?:bf16|fp32) .*$", page, re.MULTILINE)
    assert len(quoted) == 14
    assert set(quoted) <= set(results.splitlines())
