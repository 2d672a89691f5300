"""`iir-fast plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from iir_fast.app.commands.recipe import look
from iir_fast.planning import GIB, TrainingSetup, largest_batch, plan
from iir_fast.planning import tabulate as tabulate_plans
from iir_fast.training import TrainConfig, from_options

SHARED = ("backbone", "image_size", "output_stride", "out_index", "hidden", "precision", "optimizer")
"""What a setup has of a training's options."""


@dataclass(frozen=True)
class Plan:
    """Count the memory of a training step per device, with this package's kernels and without. Needs no GPU."""

    setup: tyro.conf.OmitArgPrefixes[TrainingSetup]
    recipe: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """YAML file of options of `train`, such as those under configs/, for all but classes, ranks, device and batch;
    options on the command line go before the file's, and those of a second recipe before the first one's."""
    batch: tuple[int, ...] = (32, 64, 128, 256)
    """Images per device; a row for each."""
    memory: float | None = None
    """GiB that the step may take: also find the largest batch that fits."""
    json: bool = False
    """Print JSON, in bytes, in place of the table."""

    def run(self) -> None:
        plans = [plan(self.setup, batch) for batch in self.batch]
        if self.memory is not None and not 0 < self.memory < 1e6:
            raise ValueError(f"memory is {self.memory}; accepted is a number of GiB above 0, and below a million.")
        largest = None if self.memory is None else largest_batch(self.setup, int(self.memory * GIB))
        if largest and not largest.with_kernels:
            needed = plan(self.setup, 1).total / GIB
            raise ValueError(f"memory is {self.memory} GiB; one image per device takes {needed:.2f} GiB.")
        if self.json:
            found = {"setup": asdict(self.setup), "plans": [each.to_dict() for each in plans]}
            print(json.dumps(found | {"largest_batch": largest._asdict() if largest else None}))
            return
        options = ", ".join(f"{name} {value}" for name, value in asdict(self.setup).items())
        print("GiB per device at the peak of a training step. Total: the first four, and the larger of the next two.")
        print(options, tabulate_plans(plans), sep="\n\n")
        if largest:
            print(
                f"\nLargest batch per device in {self.memory} GiB: {largest.with_kernels} with this package's kernels, "
                f"{largest.without_kernels} without."
            )


def plan_defaults(arguments: Sequence[str]) -> Plan | None:
    """Return defaults of `plan` out of the recipes that its arguments name, if they do; raise where one is at fault."""
    options, origin = look(arguments)
    if not options:
        return None
    trained = TrainConfig.from_options(options, origin).options()
    return Plan(from_options(TrainingSetup, {name: trained[name] for name in SHARED}, origin))
