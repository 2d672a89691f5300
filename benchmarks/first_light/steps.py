"""Stages that time a training step, forward and backward: package and peers in turns, and how long the host needs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import agreement, machine
from benchmarks.clock import Clock, interleave, paired_ratio, rounds_within
from benchmarks.first_light.processes import Fault, Findings, one_line, trace
from benchmarks.first_light.setting import Setting
from benchmarks.workloads import PACKAGE, STEP, TINY_SHAPES, Workload, make, missing_compiler

EAGER, COMPILED = (PACKAGE, "naive", "batched"), ("batched_compiled", "naive_compiled")
SECONDS_IN_TURNS, HOST_CALLS = 3.0, 50
TINY_COPY_BYTES = 1 << 20


def in_turns(setting: Setting, network: str, dtype: torch.dtype, channels_last: bool = False) -> Iterator[Findings]:
    """The step against its peers on the map of a network.

    First without what must be compiled, and that is kept; then all together in the same rounds.
    """
    shape = setting.shape(network, dtype, channels_last)
    clock = Clock(setting.device)
    copy = machine.copy_bandwidth(clock, setting.device, TINY_COPY_BYTES if setting.tiny else machine.COPY_BYTES)
    # Only inductor needs one, which tiny runs go without.
    missing = None if setting.tiny else missing_compiler(setting.device)
    workload = make(STEP, shape, setting.device, None if missing else setting.compiler)
    figures: dict[str, Any] = {"shape": shape.as_record(), "copy_gb_per_s": copy / 1e9, "contenders": {}}
    contenders: dict[str, Any] = figures["contenders"]
    able: list[str] = []
    for group in (EAGER, COMPILED):
        for each in group:
            if each in workload.contenders:
                contenders[each] = _prepare(workload, each, setting)
                able += [each] if "fault" not in contenders[each] else []
            else:
                contenders[each] = {"skipped": missing}
        for each, found in _time(workload, able, clock, setting.tiny).items():
            contenders[each] |= found
        package = contenders[PACKAGE]
        if "seconds" in package:
            rate = workload.least_bytes / package["median_seconds"]
            package |= {"gb_per_s": rate / 1e9, "percent_of_copy": 100 * rate / copy}
        yield Findings(figures, [f"{network}: {shape}; copying: {copy / 1e9:.3g} GB/s", *_lines(contenders)])
    faults = [name for name, found in contenders.items() if "fault" in found]
    if faults:
        raise Fault(f"{', '.join(faults)} did not run or did not agree")


def _prepare(workload: Workload, contender: str, setting: Setting) -> dict[str, Any]:
    """Hold it to the package's results, which warms it up, and see what memory it takes; or what became of that."""
    try:
        if contender == PACKAGE:
            workload.run(PACKAGE)
        else:
            agreement.check(workload, contender)
        workload.clear()
        return {"extra_peak_bytes": machine.extra_peak_bytes(partial(workload.run, contender), setting.device)}
    except Exception as error:  # one contender's trouble is not the others'
        return {"fault": one_line(error), "traceback": trace()}
    finally:
        workload.clear()


def _time(workload: Workload, contenders: list[str], clock: Clock, tiny: bool) -> dict[str, dict[str, Any]]:
    """Contender -> its seconds of every round, and how many times the package's they are."""
    if not contenders:
        return {}
    calls = {each: partial(workload.run, each) for each in contenders}
    warm = interleave(calls, workload.clear, clock, 1)
    rounds = 2 if tiny else rounds_within(SECONDS_IN_TURNS, sum(map(sum, warm.values())))
    seconds = interleave(calls, workload.clear, clock, rounds)
    found: dict[str, dict[str, Any]] = {}
    for each, taken in seconds.items():
        first, median, third = statistics.quantiles(taken, n=4, method="inclusive")
        found[each] = {"median_seconds": median, "first_quartile": first, "third_quartile": third, "seconds": taken}
        if PACKAGE in seconds:
            found[each]["times_the_package"] = paired_ratio(taken, seconds[PACKAGE])._asdict()
    return found


def _lines(contenders: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in contenders.items():
        if "seconds" not in found:
            lines.append(f"{name}: {found.get('fault') or found.get('skipped')}")
            continue
        first, median, third = (1e3 * found[key] for key in ("first_quartile", "median_seconds", "third_quartile"))
        line = f"{name}: {median:.3f} ms ({first:.3f} to {third:.3f})"
        if "gb_per_s" in found:
            line += f", {found['gb_per_s']:.3g} GB/s, {found['percent_of_copy']:.0f} % of copying"
        elif "times_the_package" in found:
            ratio = found["times_the_package"]
            low, high = ratio["first_quartile"], ratio["third_quartile"]
            line += f", **{ratio['median']:.2f}** times the package ({low:.2f} to {high:.2f})"
        extra = found["extra_peak_bytes"]
        lines.append(line + ("" if extra is None else f", {extra / 1e6:.1f} MB"))
    return lines


def host(setting: Setting) -> Iterator[Findings]:
    """How long the host is busy with a step: until the call returns, with the device idle before and not waited for.

    On a map so small that the device is done as soon as it is told. On the CPU the call returns when all is computed.
    """
    workload = make(STEP, TINY_SHAPES[0], setting.device)

    def prepare() -> None:
        workload.clear()
        setting.synchronize()

    calls = {each: partial(workload.run, each) for each in (PACKAGE, "batched")}
    interleave(calls, prepare, Clock("cpu"), 3)
    seconds = interleave(calls, prepare, Clock("cpu"), 5 if setting.tiny else HOST_CALLS)
    medians = {each: statistics.median(taken) for each, taken in seconds.items()}
    ratio = paired_ratio(seconds["batched"], seconds[PACKAGE])
    until = "until the call returns" if setting.device == "cuda" else "until all is computed: the CPU has no queue"
    lines = [f"{TINY_SHAPES[0]}, {until}"]
    lines += [f"{name}: {1e6 * median:.0f} µs" for name, median in medians.items()]
    lines.append(f"batched: {ratio.median:.2f} times the package")
    figures: dict[str, Any] = {"shape": TINY_SHAPES[0].as_record(), "median_seconds": medians}
    figures |= {"batched_times_the_package": ratio._asdict(), "seconds": {key: seconds[key] for key in seconds}}
    yield Findings(figures, lines)
    if setting.device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            workload.run(PACKAGE)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield Findings({"waits_for_the_device": False}, [*lines, "the package's step never waits for the device"])
