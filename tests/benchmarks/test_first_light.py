"""The first minutes on a new machine: everything runs on the CPU, and no stage's end is another's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.first_light import __main__ as first_light
from benchmarks.first_light import steps
from benchmarks.first_light.operators import TestRun
from benchmarks.first_light.processes import ROOT, Fault, run
from benchmarks.first_light.setting import Setting
from benchmarks.first_light.stages import STAGES
from benchmarks.first_light.table import render
from benchmarks.workloads import PACKAGE, make

# Stages that end in every way there is; a child that needs no torch runs them.
CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from benchmarks.first_light.processes import Fault, Findings, Skipped, keep

def ending(how):
    yield Findings({"begun": True}, ["begun"])
    if how == "raises":
        raise KeyError("what it is | was")
    if how == "finds":
        raise Fault("2 of 3 are wrong")
    if how == "skips":
        raise Skipped("there is none here")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hangs":
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        yield Findings({"started": started.pid})
        time.sleep(600)
    yield Findings({"ended": True}, ["begun", "ended"])

keep(ending(sys.argv[1]), Path(sys.argv[2]))
if sys.argv[1] == "ends badly":
    os._exit(3)
"""
# All stages, and the doctor, where torch, triton, numpy and pytest are all there is beside the package.
LITTLE = """
import sys
for name in ("timm", "torchvision", "cv2", "PIL", "yaml", "tyro", "rich", "tensorboard", "matplotlib", "pynvml"):
    sys.modules[name] = None
import iir_fast.app.doctor
from benchmarks.first_light.stages import STAGES
print(sorted(STAGES))
"""
ENDS = {
    "raises": ("failed", "KeyError: 'what it is | was'"),
    "finds": ("failed", "2 of 3 are wrong"),
    "dies": ("failed", "its process was ended by SIGSEGV"),
    "hangs": ("failed", "its process was killed after the "),
    "ends badly": ("failed", "its process ended with exit status 3"),
    "skips": ("skipped", "there is none here"),
    "ends": ("ok", None),
}


def command(name: str, path: Path) -> list[str]:
    return [sys.executable, "-c", CHILD, name, str(path)]


def is_alive(process: int) -> bool:
    try:
        # A process that nobody waits for stays, ended, in the list.
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_stage_that_fails_however_it_does_keeps_no_other_from_running():
    # What "hangs" may take is its own part and what those before it have left.
    shares = {name: 3.0 if name == "hangs" else 20.0 for name in ["hangs", *ENDS]}
    stages = {stage["name"]: stage for stage in run(shares, command, sum(shares.values()))}
    assert list(stages) == list(shares)
    for name, (status, reason) in ENDS.items():
        assert stages[name]["status"] == status, stages[name]
        assert stages[name].get("reason", "").startswith(reason or "")
        # What was found before is kept.
        assert stages[name]["figures"]["begun"]
        assert ("ended" in stages[name]["figures"]) == (name in ("ends", "ends badly"))
    assert "in ending" in stages["raises"]["traceback"]
    assert not {"traceback", "output"} & stages["ends"].keys()
    deadline = time.monotonic() + 10
    while (alive := is_alive(stages["hangs"]["figures"]["started"])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


def test_a_stage_for_which_no_time_is_left_has_failed():
    first, second = run({"ends": 1e-9, "skips": 1e-9}, command, 1e-9)
    assert {first["status"], second["status"]} == {"failed"}
    assert "were over before it began" in second["reason"]


@pytest.mark.parametrize(("names", "status"), [(["raises", "ends"], 1), (["ends", "skips"], 0)])
def test_the_exit_status_says_whether_a_stage_failed(names, status, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first_light, "SHARES", dict.fromkeys(names, 10))
    monkeypatch.setattr(first_light, "command_of", lambda device, tiny: command)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        first_light.main(["--device", "cpu"])
    assert stop.value.code == status
    # Without --out a CPU's figures go where no GPU's are.
    record = json.loads((tmp_path / "first_light" / "first_light_cpu.json").read_text())
    assert [stage["status"] for stage in record["stages"]] == [ENDS[name][0] for name in names]
    table = (tmp_path / "first_light" / "first_light_cpu.md").read_text()
    found = re.search(r"\| raises \| \*\*failed\*\* \| \d+ \| KeyError: 'what it is \\\| was' \|", table)
    assert (found is not None) == (status == 1)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("Failed: raises." if status else "Nothing failed.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--device", "cuda"], "torch finds no CUDA"), (["--device", "cpu", "--minutes", "0"], "--minutes is 0")],
)
def test_what_cannot_be_is_refused(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        first_light.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_every_stage_runs_on_the_cpu(tmp_path):
    assert first_light.SHARES.keys() == STAGES.keys()
    # Beside other work a CPU may take longer than the eight minutes that a GPU's machine has.
    options = ["--device", "cpu", "--tiny", "--minutes", "40", "--out", str(tmp_path)]
    start = [sys.executable, "-m", "benchmarks.first_light", *options]
    # Beside other tests threads that wait for each other take a hundred times as long.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "first_light_cpu.json").read_text())
    stages = {stage["name"]: stage for stage in record["stages"]}
    assert {name for name, stage in stages.items() if stage["status"] != "ok"} == {"graph"}
    assert stages["graph"]["reason"] == "CUDA graphs are captured on a GPU only"

    figures = {name: stage["figures"] for name, stage in stages.items()}
    assert figures["machine"]["device"] == "cpu"
    assert {check["operator"] for check in figures["doctor"]["checks"]} >= {"label_cam", "evidence_map"}
    names = ["package", "naive", "batched", "batched_compiled", "naive_compiled"]
    for name in ("step_stride16", "step_vgg16", "step_7x7"):
        contenders = figures[name]["contenders"]
        assert list(contenders) == names
        assert all(
            len(each["seconds"]) == 2 and each["times_the_package"]["rounds"] == 2 for each in contenders.values()
        )
    assert figures["host"]["median_seconds"].keys() == {"package", "batched"}
    assert all(each["losses"][-1] < each["losses"][0] for each in figures["precision"].values())
    assert figures["operators"]["counts"]["passed"] > 0
    assert figures["operators"]["failed"] == []

    table = (tmp_path / "first_light_cpu.md").read_text()
    assert "# First light on a CPU" in table
    assert "nothing here says anything of a GPU" in table
    assert "| graph | skipped |" in table
    assert all(f"| {name} | ok |" in table for name in STAGES if name != "graph")
    assert all(f"    {line}" in done.stdout for stage in stages.values() for line in stage["lines"])


def test_one_contender_s_failure_is_not_the_others(monkeypatch):
    def broken(*arguments: object) -> None:
        raise OSError("no such chip")

    def made(*arguments: object) -> object:
        workload = make(*arguments)
        package = workload.contenders[PACKAGE]
        wrong = {"batched_compiled": lambda *inputs: tuple(1.1 * each for each in package(*inputs))}
        return replace(workload, contenders={**workload.contenders, "naive": broken, "naive_compiled": broken, **wrong})

    monkeypatch.setattr(steps, "make", made)
    stage = steps.in_turns(Setting("cpu", tiny=True), "VGG16", torch.float32)
    eager, everything = next(stage), next(stage)
    with pytest.raises(Fault, match="naive, batched_compiled, naive_compiled did not run or did not agree"):
        next(stage)
    contenders = everything.figures["contenders"]
    assert "naive: OSError: no such chip" in eager.lines
    assert "DisagreementError" in contenders["batched_compiled"]["fault"]
    assert {name for name, found in contenders.items() if "seconds" in found} == {"package", "batched"}
    assert contenders["batched"]["times_the_package"]["median"] > 0


LINES = """tests/kernels/test_a.py::test_one[a b] PASSED                       [ 25%]
tests/kernels/test_a.py::test_two[x \\[2, 3\\]] FAILED                 [ 50%]
tests/kernels/test_a.py::test_three SKIPPED (needs something)         [ 75%]
tests/kernels/test_b.py::test_four ERROR                              [100%]""".splitlines()


def test_a_test_run_is_counted_as_far_as_it_got():
    run = TestRun()
    assert sum(run.read(line) for line in LINES) == 4
    assert run.counts == {"passed": 1, "failed": 1, "skipped": 1, "errors": 1}
    assert list(run.failed) == [r"tests/kernels/test_a.py::test_two[x \[2, 3\]]", "tests/kernels/test_b.py::test_four"]
    assert "not at its end; the last: tests/kernels/test_b.py::test_four" in run.findings(None).lines[0]


def test_the_closing_line_of_a_test_run_has_the_last_word():
    run = TestRun()
    for line in [
        *LINES,
        "=========== 1 failed, 7 passed, 3 skipped, 2 warnings, 2 errors in 63.10s (0:01:03) ===========",
    ]:
        run.read(line)
    assert run.counts == {"passed": 7, "failed": 1, "skipped": 3, "errors": 2}
    assert run.findings("one is left out").lines == [
        "7 passed, 1 failed, 3 skipped, 2 errors",
        "one is left out",
    ]


def test_the_table_of_a_gpu_says_which():
    machine = {"gpu": "Made-up GPU", "gpu_memory_bytes": 80 << 30, "driver": None, "processor": "Made-up CPU"}
    machine |= {"threads": 8, "commit": None, "python": "3.12", "torch": "2.9.0", "triton": "3.5.0"}
    stage = {"name": "machine", "status": "ok", "seconds": 3.2, "figures": machine, "lines": ["one", "two"]}
    record = {"device": "cuda", "tiny": False, "began": "2026-01-02", "seconds": 240.0, "stages": [stage]}
    text = render(record)
    assert "# First light on a GPU" in text
    assert "Made-up GPU, 80 GiB, driver unknown; host: Made-up CPU, 8 threads. Commit unknown." in text
    assert "Measured on the GPU" in text
    assert text.endswith("| machine | ok | 3 | one |\n|  |  |  | two |\n")


def test_nothing_beyond_torch_and_triton_is_asked_for():
    done = subprocess.run([sys.executable, "-c", LITTLE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(STAGES))
