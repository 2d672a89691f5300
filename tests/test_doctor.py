"""iir-fast doctor: what it prints as a process, and that it notices an operator that is wrong, unsteady or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count

import pytest

from iir_fast import cli, doctor, functional
from iir_fast.kernels import selection


@pytest.mark.slow
def test_a_healthy_machine(cli):
    result = cli("doctor", "--device", "cpu")
    for words in ("torch ", "triton ", "operators on cpu tensors run on the host backend: it is the fastest"):
        assert words in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert all(row.endswith(" ok │") for row in rows)
    for operator in ("label_cam", "regulate", "masked_pool", "subgroup_similarity", "evidence_map"):
        assert sum(f" {operator} " in row for row in rows) >= 3


def test_a_backend_that_cannot_run_is_named():
    command = [sys.executable, "-m", "iir_fast.cli", "doctor", "--device", "cpu"]
    # Read when the package is imported.
    environment = {**os.environ, "IIR_FAST_BACKEND": "triton", "TRITON_INTERPRET": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "operators on cpu tensors cannot run: backend is 'triton'" in result.stdout
    assert "label_cam, 5x33x5x9 float32: RuntimeError: backend is 'triton'" in result.stdout


def broken(*arguments):
    raise OSError("no such chip")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda results, calls: [1.001 * result for result in results], "the error is above 1e-04"),
        (lambda results, calls: [result + 1e-9 * next(calls) for result in results], "two runs gave different bits"),
        (broken, "OSError: no such chip"),
    ],
    ids=["wrong", "unsteady", "broken"],
)
def test_a_fault_is_named(change, words, monkeypatch, capsys):
    sound, calls = functional.masked_pool, count()

    def unsound(*arguments):
        results = sound(*arguments)
        return results if selection.is_reference_forced() else change(results, calls)

    monkeypatch.setattr(functional, "masked_pool", unsound)
    monkeypatch.setattr(doctor, "REALISTIC", doctor.SMALL)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--device", "cpu"])
    assert stop.value.code == 1
    printed = capsys.readouterr().out.splitlines()
    assert sum("FAULT" in line for line in printed) == 6
    assert sum(line.startswith("masked_pool, 5x33x5x9") and words in line for line in printed) == 6
