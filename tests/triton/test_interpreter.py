"""Everything that is tested of the host implementations, tested of the Triton kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = [TESTS / name for name in ("kernels", "test_loss.py", "test_head.py", "triton/interpreted")]


@pytest.mark.slow
def test_the_kernels_pass_the_tests_of_the_operators():
    pytest.importorskip("triton")
    # Not one of the workers that this test may run on: two of its own, for it takes as long as many others.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", *map(str, FILES)],
        env={**outside, "TRITON_INTERPRET": "1", "IIR_FAST_BACKEND": "triton"},
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-10_000:]
