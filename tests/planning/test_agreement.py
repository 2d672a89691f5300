"""What a plan says of head and loss against what the same step takes on the CPU, forward and backward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import workloads
from iir_fast.kernels import native
from iir_fast.planning import TrainingSetup, plan

# A plan's setup and batch, and the features [batch, channels, side, side] that its backbone makes.
CASES = {
    "512x28x28, 1000 classes": (TrainingSetup("vgg16", output_stride=8), 32, 512, 28),
    "2048x14x14, 1000 classes": (TrainingSetup("resnet50", output_stride=16), 32, 2048, 14),
    "2048x7x7, 200 classes": (TrainingSetup("resnet50", out_index=-1, classes=200), 128, 2048, 7),
}
MEASURE = """
import json, statistics, sys
from functools import partial
from benchmarks.machine import extra_peak_bytes
from benchmarks.workloads import PACKAGE, STEP, Shape, make

measured = []
for channels, side, batch, classes in json.loads(sys.argv[1]):
    workload = make(STEP, Shape(channels, side, batch, classes), "cpu")
    peaks = []
    for _ in range(4):
        workload.clear()
        peaks.append(extra_peak_bytes(partial(workload.run, PACKAGE), "cpu"))
    # The first call is one that loads libraries.
    measured.append(statistics.median(peaks[1:]))
print(json.dumps(measured))
"""


def measure(shapes: list[tuple[int, ...]]) -> list[int]:
    """In a process of its own, whose allocator gives back at once what is freed: glibc would keep some of it."""
    root = Path(workloads.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, json.dumps(shapes)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is reset on Linux only")
@pytest.mark.skipif(native.kernels() is None, reason="the compiled host kernels are what is counted")
def test_head_and_loss_take_what_is_planned():
    shapes = [(channels, side, batch, setup.classes) for setup, batch, channels, side in CASES.values()]
    measured = iter(measure(shapes))
    for name, (setup, batch, channels, _) in CASES.items():
        of_step = TrainingSetup(**{**vars(setup), "hidden": None, "precision": "fp32"})
        # The measured step makes the gradients of the head's parameters; a plan has them among all gradients.
        planned = plan(of_step, batch).head_and_loss + 4 * 2 * setup.classes * (channels + 1)
        assert planned == pytest.approx(next(measured), rel=0.1), name
