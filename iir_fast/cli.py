"""The command line: `iir-fast train | evaluate | localize | compare | data | demo | doctor`."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from rich.console import Console
from rich.table import Table

from iir_fast.comparison import read_comparison, run_comparison, tables
from iir_fast.data import BrokenImageError, check_data, has_split, pack_split
from iir_fast.demo import run_demo, tabulate
from iir_fast.doctor import describe, examine
from iir_fast.doctor import tabulate as tabulate_checks
from iir_fast.evaluation import FixedThreshold, Metrics
from iir_fast.localization import DEFAULT_THRESHOLD, PREDICTED_COLOUR, localize_images, overlay
from iir_fast.models import MAP_KINDS, MapKind, load_localizer
from iir_fast.progress import console
from iir_fast.runs import evaluate_run, validation
from iir_fast.training import Interrupted, RunFolder, TrainConfig, WhenThere, pick_device, train

INTERRUPTED = 130
"""Exit status of a command that SIGINT ended, as shells have it."""


@dataclass(frozen=True)
class Train:
    """Train a localizer, then evaluate it on the test split."""

    out: tyro.conf.Positional[Path]
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard scalars."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    resume: Literal["no", "auto"] = "no"
    """auto: go on with the run that is in the folder, from its newest checkpoint; start one where there is none."""
    overwrite: bool = False
    """Remove the run that is in the folder and start anew."""
    validate: str | None = None
    """Split to evaluate after every epoch; the checkpoint with the best MaxBoxAccV2 (PxAP where there are masks alone)
    of the evidence map is kept as checkpoints/best.pt."""

    def run(self) -> None:
        if self.resume != "no" and self.overwrite:
            raise ValueError("resume and overwrite exclude each other.")
        when_there: WhenThere = "resume" if self.resume == "auto" else "overwrite" if self.overwrite else "refuse"
        validate = None if self.validate is None else validation(self.config, self.validate)
        if not train(self.config, self.out, when_there, validate).by_first_rank:
            return
        if has_split(self.config.data, "test"):
            Console().print(_metrics_table(evaluate_run(self.out, device=self.config.device)))
        else:
            console.print(f"not evaluated: {self.config.data} has no test split.")
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
    """What to evaluate on, as in `train`; what the run was trained on by default."""
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
class Compare:
    """Train and evaluate the rows of a YAML file from several seeds, each run in its own process; print the table.

    Runs that the folder holds are kept, so the same command goes on after Ctrl-C. Exit status 1: a run failed.
    """

    file: tyro.conf.Positional[Path]
    """YAML with title, seeds, maps, base, data and rows; see configs/compare."""
    out: tyro.conf.Positional[Path]
    """Folder of the runs, of results.json (every run's figures) and table.md (the tables and how they were made)."""
    data: str | None = None
    """What to train on, in place of what the file says."""
    jobs: int = 1
    """Runs at a time; they share torch's threads."""

    def run(self) -> None:
        comparison = read_comparison(self.file, self.data)
        options = ["--data", self.data] if self.data else []
        options += ["--jobs", str(self.jobs)] if self.jobs > 1 else []
        command = shlex.join(["iir-fast", "compare", str(self.file), str(self.out), *options])
        say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        results = run_comparison(comparison, self.out, self.jobs, command, say)
        print(tables(comparison, results), end="")
        if any(result.failure for result in results):
            sys.exit(1)


@dataclass(frozen=True)
class Check:
    """Check a data set: what is there, what is missing, what is inconsistent; exit status 1 with faults."""

    source: tyro.conf.Positional[str]
    """What `train --data` takes: procedural, a folder with CSVs, or one of
    - cub:ROOT, ilsvrc:ROOT, openimages:ROOT: the images, CUB/ and so on, and metadata/CUB/test/image_ids.txt and so on
    - pet:ROOT: oxford-iiit-pet/
    - images:ROOT: train/<class>/ and test/<class>/, images at any depth
    - shards:ROOT: train/*.tar, test/*.tar and perhaps classes.txt
    """
    decode: bool = False
    """Decode every image and mask, which finds truncated ones; by default their headers are read."""
    json: bool = False
    """Print JSON, with every fault, in place of the page."""

    def run(self) -> None:
        report = check_data(self.source, self.decode)
        if self.json:
            print(json.dumps(report.to_dict()))
        else:
            Console().print(report.table())
            print(*report.lines(), sep="\n")
        if report.faults:
            sys.exit(1)


@dataclass(frozen=True)
class Pack:
    """Pack the images, labels and boxes of one split into tar shards of about 1 GB, WebDataset's layout."""

    source: tyro.conf.Positional[str]
    """What to pack, as `check` takes it."""
    out: tyro.conf.Positional[Path]
    """Folder for classes.txt and the shards, <split>/000000.tar and so on; `train --data shards:OUT` reads them."""
    split: str = "train"
    """Which part of the source; it must not be in the folder yet."""

    def run(self) -> None:
        packed = pack_split(self.source, self.out, self.split)
        print(f"{packed.folder}: {packed.images:,} images, {packed.boxes:,} boxes; shards: {packed.shards:,}")
        if packed.masks_left_out:
            console.print(f"masks are left out, shards hold none; {self.source} still has them.", highlight=False)


@dataclass(frozen=True)
class Data:
    """Check a data set, or pack it into shards."""

    action: tyro.conf.OmitArgPrefixes[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Pack, tyro.conf.subcommand("pack")]
        ]
    ]

    def run(self) -> None:
        self.action.run()


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
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Data, tyro.conf.subcommand("data")]
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
