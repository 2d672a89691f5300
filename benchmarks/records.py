"""The JSON of a run, of the scaling curves and of the shares, and the XML of a test run, read back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.clock import Ratio
from benchmarks.workloads import PACKAGE


@dataclass(frozen=True)
class Measurement:
    """The whole step or one operator on one shape."""

    what: str
    name: str
    shape: dict[str, Any]
    seconds: dict[str, float]
    """Contender -> median of the rounds in turns."""
    ratios: dict[str, Ratio]
    """Peer, or "floor" -> how many times as long as the package it takes, in the same rounds."""
    gb_per_s: float
    """Of the package, over the bytes that must be moved."""
    percent_of_copy: float
    extra_peak_bytes: dict[str, int | None]
    """By contender."""

    def memory_ratio(self, peer: str) -> float | None:
        """How many times the package's extra memory a peer takes; None where either was not measured, or is zero."""
        own, other = self.extra_peak_bytes.get(PACKAGE), self.extra_peak_bytes.get(peer)
        return other / own if own and other else None


@dataclass(frozen=True)
class TestRun:
    """What ``pytest benchmarks/ --benchmark-disable --junit-xml`` wrote."""

    __test__ = False
    tests: int
    failed: int
    seconds: float


@dataclass
class Evidence:
    """Everything that a report is made of."""

    machine: dict[str, Any]
    commit: dict[str, Any]
    moment: str
    measurements: list[Measurement]
    scaling: dict[str, Any] | None = None
    shares: dict[str, Any] | None = None
    test_run: TestRun | None = None


def read(paths: Iterable[Path]) -> Evidence:
    """Read one run and whatever belongs to it.

    Raises:
        ValueError: a file is of no known kind, or there is not exactly one run among them.
    """
    runs, others, test_run = [], [], None
    for path in paths:
        if path.suffix == ".xml":
            test_run = _test_run(path)
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        if "benchmarks" in record:
            runs.append(record)
        elif record.get("kind") in ("scaling", "share"):
            others.append(record)
        else:
            raise ValueError(f"{path.name} is neither pytest-benchmark's JSON nor that of a scaling or share run.")
    if len(runs) != 1:
        raise ValueError(f"{len(runs)} runs of pytest-benchmark were given; accepted is exactly one.")
    (run,) = runs
    evidence = Evidence(run["machine_info"], run["commit_info"], run["datetime"], measurements(run), test_run=test_run)
    for record in others:
        if record["machine"]["device"] != evidence.machine["device"]:
            raise ValueError(f"The {record['kind']} run was made on another device than the run of pytest-benchmark.")
        if record["kind"] == "scaling":
            evidence.scaling = record
        else:
            evidence.shares = record
    return evidence


def measurements(run: dict[str, Any]) -> list[Measurement]:
    """One Measurement per group of pytest-benchmark's JSON, in its order.

    Raises:
        ValueError: a group lacks the package's row, which holds the comparison.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in run["benchmarks"]:
        groups.setdefault(row["group"], []).append(row["extra_info"])
    found = []
    for group, rows in groups.items():
        own = next((row for row in rows if row["contender"] == PACKAGE), None)
        if own is None:
            raise ValueError(f"The run's group {group!r} lacks the row of the package.")
        found.append(
            Measurement(
                own["what"],
                own["name"],
                own["shape"],
                {name: statistics.median(each) for name, each in own["seconds_in_turns"].items()},
                {name: Ratio(**each) for name, each in own["in_turns"].items()},
                own["gb_per_s"],
                own["percent_of_copy"],
                {row["contender"]: row["extra_peak_bytes"] for row in rows},
            )
        )
    return found


def _test_run(path: Path) -> TestRun:
    root = ElementTree.parse(path).getroot()
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    failed = sum(int(suite.get("failures", 0)) + int(suite.get("errors", 0)) for suite in suites)
    tests = sum(int(suite.get("tests", 0)) for suite in suites)
    return TestRun(tests, failed, sum(float(suite.get("time", 0)) for suite in suites))
