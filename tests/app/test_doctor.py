"""iir-fast doctor: what it prints as a process, and that it notices an operator that is wrong, unsteady or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from iir_fast import functional
from iir_fast.app import cli, doctor
from iir_fast.kernels import selection


@pytest.mark.slow
def test_a_healthy_machine(cli):
    result = cli("doctor", "--device", "cpu")
    for words in ("torch ", "triton ", "operators on cpu tensors run on the native backend: it is the fastest"):
        assert words in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert all(row.endswith(" ok │") for row in rows)
    for operator in ("label_cam", "regulate", "masked_pool", "subgroup_similarity", "evidence_map"):
        assert sum(f" {operator} " in row for row in rows) >= 3


def test_a_backend_that_cannot_run_is_named():
    command = [sys.executable, "-m", "iir_fast", "doctor", "--device", "cpu"]
    # Read when the package is imported.
    environment = {**os.environ, "IIR_FAST_BACKEND": "triton", "TRITON_INTERPRET": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "operators on cpu tensors cannot run: backend is 'triton'" in result.stdout
    assert "label_cam, 5x33x5x9 float32: RuntimeError: backend is 'triton'" in result.stdout


def test_a_gpu_whose_kernels_cannot_be_launched_is_described(monkeypatch):
    class NoCompiler:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(pytest.importorskip("triton.runtime"), "driver", NoCompiler())
    properties = SimpleNamespace(name="Some GPU", major=9, minor=0, total_memory=80 * 2**30)
    for name, value in {"device_count": 1, "get_device_properties": properties, "is_available": True}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, value=value: value)
    monkeypatch.setattr(torch.version, "hip", None)
    selection._launch_fault.cache_clear()
    try:
        described = doctor.describe()
    finally:
        selection._launch_fault.cache_clear()
    assert "cuda:0: Some GPU, sm_90, 80 GiB" in described
    words = (
        "operators on cuda tensors run on the native backend: triton, which has the GPU kernels, cannot launch kernels"
    )
    assert words in described[-1]
    assert "it needs a C compiler" in described[-1]


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
        return results if selection.calls_reference() else change(results, calls)

    monkeypatch.setattr(functional, "masked_pool", unsound)
    monkeypatch.setattr(doctor, "REALISTIC", doctor.SMALL)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--device", "cpu"])
    assert stop.value.code == 1
    printed = capsys.readouterr().out.splitlines()
    assert sum("FAULT" in line for line in printed) == 6
    assert sum(line.startswith("masked_pool, 5x33x5x9") and words in line for line in printed) == 6


def test_a_fault_that_shows_later_and_all_that_follows_are_named(monkeypatch, capsys):
    """As on a GPU: a kernel's fault is told of when its results are looked at, and nothing works from there on."""
    sound, lost = doctor._calls, RuntimeError("an illegal memory access was encountered")

    def calls(shape, dtype, device):
        if dtype == torch.float32:
            return sound(shape, dtype, device)
        raise lost

    def worst(*arguments):
        raise lost

    monkeypatch.setattr(doctor, "_calls", calls)
    monkeypatch.setattr(doctor, "_worst", worst)
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--device", "cpu"])
    named = [line for line in capsys.readouterr().out.splitlines() if line.endswith(f": RuntimeError: {lost}.")]
    assert [line.partition(",")[0] for line in named].count("masked_pool") == 2
    assert [line.partition(":")[0] for line in named[-2:]] == [
        "tensors, 5x33x5x9 float16",
        "tensors, 16x2048x14x14 bfloat16",
    ]
