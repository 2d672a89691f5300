"""Everything that is tested of the host implementations, tested of the Triton kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUBJECTS = [TESTS / "kernels", TESTS / "test_loss.py", TESTS / "test_head.py", TESTS / "triton" / "interpreted"]


@pytest.mark.slow
def test_the_kernels_pass_the_tests_of_the_operators():
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "--durations=5", *map(str, SUBJECTS)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "IIR_FAST_BACKEND": "triton"}
    result = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2_000:]
