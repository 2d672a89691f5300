"""Fixtures of the suite. With --benchmark-disable all shapes are tiny and everything runs once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import machine
from benchmarks.session import Row, Session
from benchmarks.workloads import (
    ALL_PEERS,
    EAGER_PEERS,
    OPERATORS,
    PACKAGE,
    STEP,
    TINY_SHAPES,
    Shape,
    missing_compiler,
    operator_cases,
    step_cases,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SESSION = pytest.StashKey[Session]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SESSION] = Session(DEVICE, tiny=config.getoption("benchmark_disable"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per shape and contender, shape by shape, the package first."""
    tiny = metafunc.config.stash[SESSION].tiny
    if "step_row" in metafunc.fixturenames:
        cases = list(zip(TINY_SHAPES, (ALL_PEERS, EAGER_PEERS), strict=True)) if tiny else step_cases(DEVICE)
        reason = None if tiny else missing_compiler(DEVICE)
        rows = [each for shape, peers in cases for each in _step_rows(shape, peers, reason)]
        metafunc.parametrize("step_row", rows)
    if "operator_row" in metafunc.fixturenames:
        calls = [(what, shape) for what in OPERATORS for shape in TINY_SHAPES] if tiny else operator_cases(DEVICE)
        rows = [
            _parameter(Row(what, shape, each, ("batched",))) for what, shape in calls for each in (PACKAGE, "batched")
        ]
        metafunc.parametrize("operator_row", rows)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.benchmark(timer=config.stash[SESSION].clock.read, disable_gc=True))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What a reader of the report has to know of the machine, and not its name."""
    machine_info.clear()
    machine_info.update(machine.describe(DEVICE))


@pytest.fixture
def session(pytestconfig: pytest.Config) -> Session:
    return pytestconfig.stash[SESSION]


def _step_rows(shape: Shape, peers: tuple[str, ...], missing_compiler: str | None) -> list[Any]:
    """Rows of one shape; without a compiler those under torch.compile say so instead of running."""
    able = EAGER_PEERS if missing_compiler else peers
    skip = pytest.mark.skip(reason=missing_compiler or "")
    unable = [peer for peer in peers if peer not in able]
    return [
        *(_parameter(Row(STEP, shape, each, able)) for each in (PACKAGE, *able)),
        *(_parameter(Row(STEP, shape, each, able), skip) for each in unable),
    ]


def _parameter(row: Row, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(row, id=str(row), marks=marks)
