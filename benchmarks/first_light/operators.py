"""Stages that say what the machine is, and whether the operators are right on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.first_light.processes import ROOT, Fault, Findings, Skipped, without_root
from benchmarks.first_light.setting import Setting
from benchmarks.machine import describe
from iir_fast.app.machine import commit

if TYPE_CHECKING:
    from iir_fast.app.doctor import Check

TESTS, MORE_TESTS_ON_GPUS, TINY_TESTS = "tests/kernels", "tests/gpu", "tests/kernels/test_regulate.py"
RESULT = re.compile(r"(tests/\S+?::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
CLOSING = re.compile(r"=+ (.+) in [\d.]+s.* =+")
WORDS = {"PASSED": "passed", "FAILED": "failed", "ERROR": "errors", "SKIPPED": "skipped"}
MAX_NAMES, TAIL_LINES, RESULTS_AT_ONCE = 50, 60, 25


def look(setting: Setting) -> Iterator[Findings]:
    """Machine, versions, driver, and the C compiler that Triton and torch.compile build their launchers with."""
    found = describe(setting.device)
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    found |= {"commit": commit(), "c_compiler": compiler}
    lines = [f"{name}: {found[name]}" for name in ("gpu", "driver", "processor", "torch", "triton") if name in found]
    yield Findings(found, [*lines, "there is a C compiler" if compiler else "there is no C compiler"])


def doctor(setting: Setting) -> Iterator[Findings]:
    """What `iir-fast doctor` says: every operator against the float64 reference on the device."""
    try:
        from iir_fast.app.doctor import describe, examine
    except ModuleNotFoundError as error:
        raise Skipped(f"iir_fast.app.doctor asks for more than is installed ({error})") from error
    checks: list[Check] = []
    examined = examine(torch.device(setting.device))
    if setting.tiny:
        # The realistic sizes come last and take float64 seconds.
        examined = takewhile(lambda check: "bfloat16" not in check.setting, examined)
    for check in examined:
        checks.append(check)
        yield Findings({"checks": list(map(asdict, checks))}, _errors(checks))
    yield Findings({"described": describe()}, _errors(checks))
    faults = [f"{check.operator}, {check.setting}: {check.fault}" for check in checks if check.fault]
    if faults or not checks:
        raise Fault("; ".join([f"{len(faults)} of {len(checks)} checks failed", *faults[:1]]))


def _errors(checks: Sequence[Check]) -> list[str]:
    """A line for each operator: its largest errors in any setting."""
    lines = []
    for operator in dict.fromkeys(check.operator for check in checks):
        own = [check for check in checks if check.operator == operator]
        line = f"{operator}: {sum(not check.fault for check in own)} of {len(own)} settings right"
        for name in ("results", "gradients"):
            errors = [error for check in own if (error := getattr(check, name)) is not None]
            line += f", {name} off by {max(errors):.1e} at most" if errors else ""
        lines.append(line)
    return lines


def run_tests(setting: Setting) -> Iterator[Findings]:
    """The operators' own tests, with their tensors on the device."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--color=no", "-p", "no:cacheprovider"]
    command += [TINY_TESTS] if setting.tiny else [TESTS]
    if setting.device == "cuda" and not setting.tiny and (ROOT / MORE_TESTS_ON_GPUS).is_dir():
        command.append(MORE_TESTS_ON_GPUS)
    left_out = None
    if find_spec("hypothesis") is None:
        left_out = "test_properties.py is left out: hypothesis is not installed"
        command.append(f"--ignore={TESTS}/test_properties.py")
    # As on a machine without plugins; their options would be unknown there, and their output another.
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "IIR_FAST_TEST_DEVICE": setting.device}
    run = TestRun()
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    for line in child.stdout:
        if run.read(line.rstrip()) and sum(run.counts.values()) % RESULTS_AT_ONCE == 0:
            yield run.findings(left_out)
    status = child.wait()
    yield run.findings(left_out)
    if status or not run.counts["passed"]:
        raise Fault(f"pytest ended with {status}: {run.summary()}{run.first_failed()}")


class TestRun:
    """What `pytest -v` says, line by line: of a run that is killed as much is known as it got through."""

    __test__ = False

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: dict[str, None] = {}
        self.last = ""
        self.closing = ""
        self.tail: list[str] = []

    def read(self, line: str) -> bool:
        """Take up a line; whether it was the result of a test."""
        self.tail = [*self.tail, line][-TAIL_LINES:]
        if closing := CLOSING.fullmatch(line):
            self.closing = closing[1]
            # Errors of the collection, for one, have no line of their own.
            counted = re.findall(r"(\d+) (passed|failed|skipped|error)", self.closing)
            self.counts.update({word.replace("error", "errors"): 0 for _, word in counted})
            self.counts |= Counter({word.replace("error", "errors"): int(number) for number, word in counted})
        result = RESULT.match(line)
        if result is None:
            return False
        self.last, word = result[1], WORDS.get(result[2], result[2].lower())
        if not self.closing:
            self.counts[word] += 1
        if word in ("failed", "errors"):
            self.failed.setdefault(self.last)
        return True

    def summary(self) -> str:
        """The counts in words."""
        return ", ".join(f"{self.counts[word]} {word}" for word in dict.fromkeys(["passed", "failed", *self.counts]))

    def first_failed(self) -> str:
        """The name of the first test that failed, after a semicolon; empty without one."""
        return f"; the first: {next(iter(self.failed))}" if self.failed else ""

    def findings(self, left_out: str | None) -> Findings:
        """All of it so far."""
        unfinished = "" if self.closing else f", not at its end; the last: {self.last}"
        figures: dict[str, Any] = {
            "counts": dict(self.counts),
            "failed": list(self.failed)[:MAX_NAMES],
            "left_out": left_out,
            "closing_line": self.closing,
            "last": self.last,
            "tail": without_root("\n".join(self.tail)),
        }
        return Findings(figures, [self.summary() + unfinished, *([left_out] if left_out else [])])
