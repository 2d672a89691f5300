"""The stages by name. In the order that `__main__` gives them they run, each in a process of its own.

A stage takes a `Setting` and yields `Findings` as it makes them; it raises `Skipped` where the device lacks what it is
about, and `Fault` where what it found is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.first_light import modes, operators, steps
from benchmarks.first_light.processes import Findings
from benchmarks.first_light.setting import Setting

Stage = Callable[[Setting], Iterator[Findings]]

STAGES: dict[str, Stage] = {
    "machine": operators.look,
    "doctor": operators.doctor,
    "step_stride16": partial(steps.in_turns, network="ResNet-50 stride 16", dtype=torch.bfloat16),
    "step_vgg16": partial(steps.in_turns, network="VGG16", dtype=torch.float32),
    "step_7x7": partial(steps.in_turns, network="ResNet-50", dtype=torch.bfloat16, channels_last=True),
    "graph": modes.graph,
    "precision": modes.precision,
    "host": steps.host,
    "compiled": modes.compiled,
    "ddp": modes.ddp,
    "operators": operators.run_tests,
}
