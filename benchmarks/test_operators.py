"""Each operator, forward and backward; evidence_map, which is for inference, forward only."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.session import Row, Session


def test_operator(benchmark: BenchmarkFixture, session: Session, operator_row: Row) -> None:
    session.measure(benchmark, operator_row)
