"""Where the tests run: on the CPU, whatever is there, and those of the operators on a GPU in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LOOK = """
import os, torch
print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["HIP_VISIBLE_DEVICES"], torch.cuda.device_count())
"""


def run_pytest(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", *map(str, arguments)]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


def test_no_process_that_a_test_starts_finds_a_gpu(start_python, tmp_path):
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    forked = start_python(script)
    started = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert [started.stdout, forked.finish().stdout] == ["-1 -1 0\n"] * 2


@pytest.mark.parametrize("before", [{}, {"CUDA_VISIBLE_DEVICES": "3,5"}, {"HIP_VISIBLE_DEVICES": "1"}], ids=str)
def test_what_is_hidden_is_shown_again_as_it_was(before, hide_gpus, show_gpus):
    environment = {"PATH": "somewhere", **before}
    for _ in range(2):  # in a process, and in one that it starts
        hide_gpus(environment)
        assert environment["CUDA_VISIBLE_DEVICES"] == environment["HIP_VISIBLE_DEVICES"] == "-1"
    assert show_gpus(environment) == {"PATH": "somewhere", **before, "IIR_FAST_TEST_DEVICE": "cuda"}


def test_without_a_gpu_a_run_on_one_ends_with_a_sentence():
    result = run_pytest({**os.environ, "IIR_FAST_TEST_DEVICE": "cuda"}, TESTS / "kernels")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stdout.strip() == ""
    assert result.stderr.strip() == (
        "ERROR: IIR_FAST_TEST_DEVICE is 'cuda', and torch finds no CUDA or ROCm device here."
    )


@pytest.mark.slow
def test_the_kernels_pass_their_tests_on_the_gpu_of_this_machine(show_gpus):
    result = run_pytest(show_gpus(os.environ), "--durations=5", TESTS / "kernels", TESTS / "gpu")
    if result.returncode == pytest.ExitCode.USAGE_ERROR and "finds no CUDA or ROCm device" in result.stderr:
        pytest.skip("torch finds no GPU here")
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2000:]
