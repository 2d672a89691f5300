"""What is compiled once and what again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.examples import Shape
from benchmarks.variants import BATCHES, CLASSES, variants


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        Shape(64, 512, 7, torch.bfloat16, False),
        Shape(64, 512, 14, torch.bfloat16, True),
        Shape(64, 512, 28, torch.float32, False),
    ],
    ids=str,
)
def test_neither_batch_nor_descriptors_nor_classes_add_a_variant(shape):
    once = variants([shape])
    assert {name.strip("_") for name in once.values()} > {"order_kernel", "class_sums_kernel"}
    assert variants([replace(shape, batch=batch) for batch in BATCHES], CLASSES) == once


@pytest.mark.slow
def test_another_map_does_add_variants():
    shape = Shape(64, 512, 7, torch.bfloat16, False)
    assert len(variants([shape, replace(shape, side=5)])) > len(variants([shape]))
