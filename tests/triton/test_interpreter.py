"""Everything that is tested of the host implementations, tested of the Triton kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OPERATORS = TESTS / "kernels" / "test_operators.py"
OTHERS = [TESTS / "kernels", TESTS / "test_loss.py", TESTS / "test_head.py", TESTS / "triton" / "interpreted"]


@pytest.mark.slow
def test_the_kernels_pass_the_tests_of_the_operators():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "IIR_FAST_BACKEND": "triton"}
    # Side by side, in halves that take about as long.
    halves = [[OPERATORS], [*OTHERS, f"--ignore={OPERATORS}"]]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--durations=5", *map(str, half)],
            env=environment,
            cwd=TESTS.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for half in halves
    ]
    for process in running:
        output, _ = process.communicate()
        assert process.returncode == 0, output[-10_000:]
