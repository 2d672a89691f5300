"""The whole step: two classifiers on a shared map with cross-entropies and IIR's loss, forward and backward."""

from __future__ import annotations

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.session import Row, Session


def test_step(benchmark: BenchmarkFixture, session: Session, step_row: Row) -> None:
    session.measure(benchmark, step_row)
