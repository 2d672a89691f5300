"""Count what a training compiles: ``python -m benchmarks.variants``.

A kernel is compiled once for each dtype, layout, number of channels and map size, and for nothing else: the batch, the
number of descriptors and the number of classes are run-time arguments. The launchers plan a training's calls on tensors
without memory; every launch is compiled for sm_90 with an empty cache. Fails when a batch or a number of classes adds a
variant. Writes ``results/variants.md``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
import triton

from benchmarks.compiled import compile_launch
from benchmarks.examples import Shape, examples

RESULTS = Path(__file__).parent / "results" / "variants.md"
TARGET = "sm_90"
SHAPE = Shape(64, 2048, 14, torch.bfloat16, False)
# Two image sizes, 448 and 320 pixels at stride 32 or 224 and 160 at stride 16.
SIDES = (14, 10)
# A whole batch, what is left of an epoch, and sizes that Triton would treat apart if it were let: 1, multiples of 16.
BATCHES = (64, 48, 37, 1)
CLASSES = (1000, 200, 16, 1)
NOT_IN_TRAINING = ("one classifier", "evidence_map")


def variants(shapes: Iterable[Shape], classes: Iterable[int] = CLASSES[:1], target: str = TARGET) -> dict[str, str]:
    """Compile the calls of training steps, frozen features and thresholds of both kinds included.

    Args:
        shapes: of the features.
        classes: numbers of classes, each combined with each shape.
        target: a key of `benchmarks.compiled.TARGETS`.

    Returns:
        Hash of a variant -> name of its kernel.
    """
    found = {}
    for shape in shapes:
        for number in classes:
            for example in examples(shape, "meta", number):
                if not any(word in str(example) for word in NOT_IN_TRAINING):
                    kernels = [compile_launch(launch, target) for launch in example.plan()]
                    found.update({kernel.hash: kernel.metadata.name for kernel in kernels})
    return found


def main() -> None:
    lines = [
        "# What a training compiles\n",
        f"Made by `python -m benchmarks.variants` with Triton {triton.__version__}, without a GPU: compiled for"
        f" {TARGET} with an empty cache, one process. Seconds are measured on CPU. Head and loss with hidden layers or"
        " without, frozen backbone or not, learned thresholds or plain means: all of them together.\n",
        "| features | batches | classes | variants | seconds |",
        "|---|---|---|---:|---:|",
    ]
    known: dict[str, str] = {}
    added = 0
    runs = [
        (side, batches, classes)
        for side in SIDES
        for batches, classes in ((BATCHES[:1], CLASSES[:1]), (BATCHES, CLASSES))
    ]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for side, batches, classes in runs:
            begin = time.perf_counter()
            found = variants([replace(SHAPE, side=side, batch=batch) for batch in batches], classes)
            seconds = time.perf_counter() - begin
            new = found.keys() - known.keys()
            known |= found
            if batches == BATCHES:
                added += len(new)
            shape = replace(SHAPE, side=side)
            names = (", ".join(map(str, each)) for each in (batches, classes))
            lines.append(f"| {shape} | {' | '.join(names)} | {len(found)}, {len(new)} of them new | {seconds:.0f} |")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(known)} variants, {added} added by a batch or a number of classes; table in {RESULTS}.")
    sys.exit(bool(added))


if __name__ == "__main__":
    main()
