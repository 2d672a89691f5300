"""What the project promises of its speed on a CPU, held against what was measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.records import Evidence, Measurement
from benchmarks.workloads import CONTENDERS, PACKAGE, STEP

HEADLINE = {"channels": 512, "side": 28, "batch": 32, "classes": 1000, "dtype": "fp32", "channels_last": False}
SPEED_UPS = {"naive": 60.0, "naive_compiled": 20.0, "batched": 4.5, "batched_compiled": 2.5}
MEMORY_RATIO = 10.0
SLOWEST = 1.05
FLOOR_RATIO = 1.5
MAX_EXPONENT = 1.1
DESCRIPTORS = 16384
TEST_SECONDS = 60.0


class Verdict(NamedTuple):
    """One promise."""

    claim: str
    measured: str
    passed: bool | None
    """None: what it takes was not measured."""


def judge(evidence: Evidence) -> list[Verdict]:
    """Every promise with what was measured of it."""
    steps = [each for each in evidence.measurements if each.what == STEP]
    headline = next((each for each in steps if HEADLINE.items() <= each.shape.items()), None)
    return [
        *(_speed_up(headline, peer, least) for peer, least in SPEED_UPS.items()),
        _memory(headline),
        _no_loser(evidence.measurements),
        _near_the_floor(steps),
        *_similarity(evidence.scaling),
        _test_run(evidence),
    ]


def losses(measurements: list[Measurement]) -> list[tuple[Measurement, str]]:
    """Every shape and peer that beats the package there, worst first."""
    found = [
        (each, peer)
        for each in measurements
        for peer, ratio in each.ratios.items()
        if peer in CONTENDERS and ratio.median < 1
    ]
    return sorted(found, key=lambda pair: pair[0].ratios[pair[1]].median)


def _speed_up(headline: Measurement | None, peer: str, least: float) -> Verdict:
    claim = f"Whole step on VGG16's shape, batch 32, 1000 classes, fp32: at least {least:g} times as fast as "
    claim += peer
    if headline is None or peer not in headline.ratios:
        return _unmeasured(claim)
    ratio = headline.ratios[peer]
    measured = f"{ratio.median:.1f} times (quartiles {ratio.first_quartile:.1f} to {ratio.third_quartile:.1f})"
    return Verdict(claim, measured, ratio.median >= least)


def _memory(headline: Measurement | None) -> Verdict:
    claim = f"There at most 1/{MEMORY_RATIO:g} of the extra peak memory of naive"
    ratio = headline.memory_ratio("naive") if headline else None
    if headline is None or ratio is None:
        return _unmeasured(claim)
    own, other = ((headline.extra_peak_bytes[name] or 0) / 1e6 for name in (PACKAGE, "naive"))
    return Verdict(claim, f"1/{ratio:.1f}: {own:.0f} MB of {other:.0f} MB", ratio >= MEMORY_RATIO)


def _no_loser(measurements: list[Measurement]) -> Verdict:
    claim = "No shape of the suite slower than batched by more than 5 %"
    competed = [each for each in measurements if "batched" in each.ratios]
    slower = {f"{each.what} {each.name}": 1 / each.ratios["batched"].median for each in competed}
    if not slower:
        return _unmeasured(claim)
    lost = [name for name, ratio in slower.items() if ratio > SLOWEST]
    worst = max(slower, key=slower.__getitem__)
    measured = f"{len(lost)} of {len(slower)} are; the worst takes {slower[worst]:.2f} of its time ({worst})"
    return Verdict(claim, measured, not lost)


def _near_the_floor(steps: list[Measurement]) -> Verdict:
    claim = f"Whole step at most {FLOOR_RATIO:g} times the floor's time on every shape"
    over = {each.name: 1 / each.ratios["floor"].median for each in steps if "floor" in each.ratios}
    if not over:
        return _unmeasured(claim)
    worst = max(over, key=over.__getitem__)
    broken = [name for name, ratio in over.items() if ratio > FLOOR_RATIO]
    measured = f"{len(broken)} of {len(over)} shapes take longer; the worst takes {over[worst]:.2f} times ({worst})"
    return Verdict(claim, measured, not broken)


def _similarity(scaling: dict[str, Any] | None) -> list[Verdict]:
    claims = (
        f"subgroup_similarity up to N = 16,384, C 1280, 32 per class: time grows no faster than N^{MAX_EXPONENT}",
        "There its extra memory is O(N C)",
    )
    curves = scaling["curves"] if scaling else []
    found = [each for each in curves if each["name"].startswith("subgroup") and each["contender"] == PACKAGE]
    if not scaling or not found or found[0]["points"][-1][0] < DESCRIPTORS:
        return [_unmeasured(claim) for claim in claims]
    size, seconds, extra = found[0]["points"][-1]
    time, memory = found[0]["exponents"]["time"], found[0]["exponents"]["memory"]
    verdicts = [Verdict(claims[0], f"N^{time:.2f}, {1000 * seconds:.0f} ms", time <= MAX_EXPONENT)]
    if memory is None:
        return [*verdicts, _unmeasured(claims[1])]
    matrices = extra / (4 * size * scaling["channels"])
    measured = f"N^{memory:.2f}, {extra / 1e6:.0f} MB, that is {matrices:.1f} matrices [N,C]"
    return [*verdicts, Verdict(claims[1], measured, memory <= MAX_EXPONENT)]


def _test_run(evidence: Evidence) -> Verdict:
    claim = "`pytest benchmarks/ --benchmark-disable` passes in under a minute"
    run = evidence.test_run
    if run is None:
        return _unmeasured(claim)
    measured = f"{run.tests} tests, {run.failed} failed, {run.seconds:.0f} s"
    return Verdict(claim, measured, run.tests > 0 and not run.failed and run.seconds < TEST_SECONDS)


def _unmeasured(claim: str) -> Verdict:
    return Verdict(claim, "not measured", None)
