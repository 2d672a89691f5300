"""The command line: `iir-fast train | evaluate | localize | plan | demo | doctor`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from rich.console import Console
from rich.table import Table

from iir_fast.data import BrokenImageError, has_split
from iir_fast.demo import run_demo, tabulate
from iir_fast.doctor import describe, examine
from iir_fast.doctor import tabulate as tabulate_checks
from iir_fast.evaluation import FixedThreshold, Metrics
from iir_fast.localization import DEFAULT_THRESHOLD, PREDICTED_COLOUR, localize_images, overlay
from iir_fast.models import MAP_KINDS, MapKind, load_localizer
from iir_fast.planning import GIB, TrainingSetup, largest_batch, plan
from iir_fast.planning import tabulate as tabulate_plans
from iir_fast.progress import console
from iir_fast.runs import evaluate_run
from iir_fast.training import Interrupted, RunFolder, TrainConfig, WhenThere, pick_device, train

INTERRUPTED = 130
"""Exit status of a command that SIGINT ended, as shells have it."""


@dataclass(frozen=True)
class Train:
    """Train a localizer, then evaluate it on the test split."""

    out: tyro.conf.Positional[Path]
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard scalars."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    resume: bool = False
    """Go on with the run that is in the folder."""
    overwrite: bool = False
    """Remove the run that is in the folder and start anew."""

    def run(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other.")
        when_there: WhenThere = "resume" if self.resume else "overwrite" if self.overwrite else "refuse"
        train(self.config, self.out, when_there)
        if has_split(self.config.data, "test"):
            Console().print(_metrics_table(evaluate_run(self.out, device=self.config.device)))
        else:
            console.print(f"not evaluated: {self.config.data} has no test.csv.")
        console.print(f"run in {self.out}")


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the localizer of a run: MaxBoxAcc, MaxBoxAccV2, PxAP, GT-known, Top-1 and Top-5 Loc."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run; its metrics.json takes up the result."""
    split: str = "test"
    """Split to evaluate."""
    maps: tuple[MapKind, ...] = MAP_KINDS
    """Localization maps: evidence, cam, both."""
    data: str | None = None
    """"procedural" or a folder; what the run was trained on by default."""
    step: float = 0.01
    """Distance of two thresholds; the protocol's training runs use 0.001."""
    threshold: float | None = None
    """Fixed threshold of GT-known and Top-k; by default the best one on the evaluated split, and the table says so."""
    threshold_from: str | None = None
    """Split that chose --threshold."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""
    json: bool = False
    """Print JSON in place of the table."""

    def run(self) -> None:
        if (self.threshold is None) != (self.threshold_from is None):
            raise ValueError("threshold and threshold_from belong together: a figure must say which split chose it.")
        fixed = None if self.threshold is None else FixedThreshold(self.threshold, str(self.threshold_from))
        metrics = evaluate_run(
            self.run_folder,
            self.split,
            self.maps,
            data=self.data,
            step=self.step,
            fixed_threshold=fixed,
            device=self.device,
        )
        if self.json:
            print(json.dumps({kind: result.to_dict() for kind, result in metrics.items()}))
        else:
            Console().print(_metrics_table(metrics))


@dataclass(frozen=True)
class Localize:
    """Find the object in images: a box, its class and the class's probability as JSON, overlays as PNG."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    model: Path
    """Folder of a run, or a checkpoint."""
    map: MapKind = "evidence"
    """Localization map."""
    threshold: float | None = None
    """Share of the map's maximum at which the object is cut out; by default the one of the run's last evaluation."""
    overlays: Path | None = None
    """Folder for overlays, one PNG per image, numbered in order."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        if not self.images:
            raise ValueError("images is empty; name at least one image file.")
        model, spec = load_localizer(self.model, pick_device(self.device))
        threshold = self._threshold()
        results, skipped = [], 0
        for number, path in enumerate(self.images):
            try:
                (found,) = localize_images(model, spec, [path], self.map, threshold)
            except BrokenImageError as error:
                if not self.skip_broken:
                    raise
                skipped += 1
                console.print(f"skipped: {error}", highlight=False)
                continue
            results.append(found.to_dict())
            if self.overlays:
                self.overlays.mkdir(parents=True, exist_ok=True)
                picture = overlay(found.image, found.scoremap, [(found.found.box, PREDICTED_COLOUR)])
                picture.save(self.overlays / f"{number:05d}-{path.stem}.png")
        print(json.dumps(results, indent=2))
        if skipped:
            console.print(f"skipped {skipped} of {len(self.images)} images that cannot be read.")

    def _threshold(self) -> float:
        if self.threshold is not None:
            return self.threshold
        evaluated = RunFolder(self.model).read_metrics().get("test", {}).get(self.map)
        if evaluated and evaluated["fixed_threshold"]:
            fixed = evaluated["fixed_threshold"]
            console.print(f"threshold {fixed['value']:.2f}, chosen on: {fixed['chosen_on']}.", highlight=False)
            return cast(float, fixed["value"])
        console.print(f"threshold {DEFAULT_THRESHOLD}, the default: no evaluation of this model.", highlight=False)
        return DEFAULT_THRESHOLD


@dataclass(frozen=True)
class Plan:
    """Count the memory of a training step per device, with this package's kernels and without. Needs no GPU."""

    setup: tyro.conf.OmitArgPrefixes[TrainingSetup]
    batch: tuple[int, ...] = (32, 64, 128, 256)
    """Images per device; a row for each."""
    memory: float | None = None
    """GiB that the step may take: also find the largest batch that fits."""
    json: bool = False
    """Print JSON, in bytes, in place of the table."""

    def run(self) -> None:
        plans = [plan(self.setup, batch) for batch in self.batch]
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


@dataclass(frozen=True)
class Demo:
    """Train CAM and IIR with the same budget on generated images; print one table, save one picture."""

    out: tyro.conf.Positional[Path] = Path("runs/demo")
    """New folder for the runs and the picture."""
    seeds: int = 3
    """Runs of each method, from different seeds."""
    epochs: int = TrainConfig.epochs
    """Passes over the training images."""
    train_images: int | None = None
    """Size of the training set, if not 4,000."""
    test_images: int | None = None
    """Size of the test set, if not 800."""

    def run(self) -> None:
        started = time.monotonic()
        config = TrainConfig(epochs=self.epochs, train_images=self.train_images, test_images=self.test_images)
        outcome = run_demo(config, self.out, self.seeds)
        Console().print(tabulate(outcome))
        Console().print(
            "Thresholds were chosen on the test split itself, as the protocol of MaxBoxAcc has it.\n"
            f"Picture: {outcome.picture}   ({time.monotonic() - started:.0f} s)",
            highlight=False,
        )


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices and the backend each runs; check every operator against the reference on a device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Which device to check."""

    def run(self) -> None:
        device = pick_device(self.device)
        print(*describe(), sep="\n")
        checks = list(examine(device))
        Console().print(tabulate_checks(checks, device))
        faults = [f"{check.operator}, {check.setting}: {check.fault}." for check in checks if check.fault]
        if faults:
            print(*faults, sep="\n")
            sys.exit(1)


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Localize, tyro.conf.subcommand("localize")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def _metrics_table(metrics: dict[MapKind, Metrics]) -> Table:
    """A column per map; every figure in percent with the threshold it was taken at."""
    first = next(iter(metrics.values()))
    table = Table(
        title=f"{first.split}, {first.images} images: % (threshold)",
        caption="MaxBoxAcc, V1 and V2, takes the best threshold on the evaluated split itself, as its protocol has it. "
        f"Threshold of GT-known and Top-k chosen on: {first.fixed_threshold_origin}."
        if first.fixed_threshold
        else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("map")
    for kind in metrics:
        table.add_column(kind, justify="right")
    rows: dict[str, list[str]] = {}
    for each in metrics.values():
        for name, value in _figures(each).items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def _figures(metrics: Metrics) -> dict[str, str]:
    v1 = metrics.curve_v1.threshold if metrics.curve_v1 else None
    fixed = metrics.fixed_threshold.value if metrics.fixed_threshold else None
    found = {"MaxBoxAccV2": _figure(metrics.max_box_acc_v2)}
    for curve in metrics.curves_v2:
        found[f"  IoU {curve.delta}"] = _figure(curve.best, curve.threshold)
    found["MaxBoxAcc"] = _figure(metrics.max_box_acc, v1)
    found["PxAP"] = _figure(metrics.pxap)
    found["GT-known Loc"] = _figure(metrics.gt_known_loc, fixed)
    found["Top-1 Loc"] = _figure(metrics.top1_loc, fixed)
    found["Top-5 Loc"] = _figure(metrics.top5_loc, fixed)
    return found


def _figure(value: float | None, threshold: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if threshold is None else f"{value:.1f} ({threshold:.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; faults of the input end with one sentence and exit status 2."""
    logging.basicConfig(format="%(message)s")
    command = tyro.cli(Command, prog="iir-fast", description=__doc__, args=arguments)
    try:
        command.run()
    except Interrupted as interruption:
        console.print(str(interruption), highlight=False)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        console.print("interrupted.")
        sys.exit(INTERRUPTED)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        console.print(f"iir-fast: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
