"""The command line: `iir-fast train | evaluate | score | report | localize | compare | data | plan | demo | doctor`."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from rich.console import Console
from torchvision.transforms.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast.comparison import read_comparison, run_comparison, tables
from iir_fast.data import BrokenImageError, check_data, has_split, open_split
from iir_fast.demo import run_demo, tabulate
from iir_fast.doctor import describe, examine
from iir_fast.doctor import tabulate as tabulate_checks
from iir_fast.evaluation import Evaluator, FixedThreshold, evaluate_scoremaps
from iir_fast.localization import DEFAULT_THRESHOLD, PREDICTED_COLOUR, localize_images, overlay
from iir_fast.models import MAP_KINDS, MapKind, load_localizer
from iir_fast.planning import GIB, TrainingSetup, largest_batch, plan
from iir_fast.planning import tabulate as tabulate_plans
from iir_fast.progress import console, image_progress
from iir_fast.report import write_report
from iir_fast.runs import evaluate_run, validation
from iir_fast.tables import metrics_table
from iir_fast.training import (
    Interrupted,
    RunFolder,
    TrainConfig,
    WhenThere,
    from_options,
    pick_device,
    read_yaml,
    train,
)

INTERRUPTED = 130
"""Exit status of a command that SIGINT ended, as shells have it."""


@dataclass(frozen=True)
class Train:
    """Train a localizer, then evaluate it on the test split."""

    out: tyro.conf.Positional[Path]
    """Folder of the run: configuration, checkpoint, metrics, TensorBoard scalars."""
    recipe: Path | None = None
    """YAML file of options, such as those under configs/; options on the command line go before the file's."""
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
            Console().print(metrics_table(evaluate_run(self.out, device=self.config.device)))
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
    save_maps: Path | None = None
    """Folder for the score maps of the evaluated kinds, KIND/IMAGE.npy, as `score` reads them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""
    json: bool = False
    """Print JSON in place of the table."""

    def run(self) -> None:
        metrics = evaluate_run(
            self.run_folder,
            self.split,
            self.maps,
            data=self.data,
            step=self.step,
            fixed_threshold=_fixed_threshold(self.threshold, self.threshold_from),
            save_maps=self.save_maps,
            device=self.device,
        )
        if self.json:
            print(json.dumps({kind: result.to_dict() for kind, result in metrics.items()}))
        else:
            Console().print(metrics_table(metrics))


@dataclass(frozen=True)
class Score:
    """Evaluate score maps on disk, whoever made them: MaxBoxAcc, MaxBoxAccV2, PxAP and GT-known Loc."""

    scoremaps: tyro.conf.Positional[Path]
    """Folder with IMAGE.npy for every image of the split, float64 224 x 224 in [0, 1]."""
    data: str
    """"procedural" or a folder, for the ground truth."""
    split: str = "test"
    """Split to evaluate."""
    step: float = 0.01
    """Distance of two thresholds; the protocol's training runs use 0.001."""
    threshold: float | None = None
    """Fixed threshold of GT-known; by default the best one on the evaluated split, and the table says so."""
    threshold_from: str | None = None
    """Split that chose --threshold."""
    json: bool = False
    """Print JSON in place of the table."""

    def run(self) -> None:
        evaluator = Evaluator(self.split, self.step, _fixed_threshold(self.threshold, self.threshold_from))
        # Images are not looked at, whatever would be made of them.
        dataset = open_split(self.data, self.split, pil_to_tensor)
        name = self.scoremaps.resolve().name
        with image_progress() as progress:
            task = progress.add_task(f"boxes of {name} maps", total=len(dataset), note="")
            metrics = evaluate_scoremaps(self.scoremaps, dataset, evaluator, partial(progress.advance, task))
        if self.json:
            print(json.dumps(metrics.to_dict()))
        else:
            Console().print(metrics_table({name: metrics}))


@dataclass(frozen=True)
class Report:
    """Write one HTML page of a run's evaluation: figures, curves, every image with maps, mask and boxes."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run. Maps that its metrics.json has no evaluation of are evaluated first."""
    split: str = "test"
    """Split to show."""
    maps: tuple[MapKind, ...] = MAP_KINDS
    """Localization maps; the page opens with the first."""
    out: Path | None = None
    """The page, if not report.html in the run's folder. Of more than 500 images, data go to a folder beside it."""
    limit: int | None = None
    """Show only so many images, evenly spaced over the split."""
    data: str | None = None
    """"procedural" or a folder; what the run was trained on by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        page = write_report(
            self.run_folder,
            self.split,
            self.maps,
            out=self.out,
            limit=self.limit,
            data=self.data,
            device=self.device,
        )
        print(page)


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
class Data:
    """Check a data set: what is there, what is missing, what is inconsistent; exit status 1 with faults."""

    action: tyro.conf.Positional[Literal["check"]]
    """What to do."""
    source: tyro.conf.Positional[str]
    """A folder with CSVs, cub:ROOT, ilsvrc:ROOT, openimages:ROOT, pet:ROOT or procedural, as `train --data` takes it.
    ROOT holds the images, CUB/, ILSVRC/ or OpenImages/, and metadata/CUB/test/image_ids.txt and the like."""
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
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Localize, tyro.conf.subcommand("localize")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def _fixed_threshold(value: float | None, chosen_on: str | None) -> FixedThreshold | None:
    if (value is None) != (chosen_on is None):
        raise ValueError("threshold and threshold_from belong together: a figure must say which split chose it.")
    return None if value is None else FixedThreshold(value, str(chosen_on))


def _with_recipe(arguments: Sequence[str]) -> Train | None:
    """Defaults of `train` out of the recipe that its arguments name, if they do."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--data")
    given, _ = parser.parse_known_args(arguments)
    if given.recipe is None or arguments[0] != "train":
        return None
    options = read_yaml(given.recipe.read_text(encoding="utf-8"), str(given.recipe))
    if given.data is None and "data" not in options:
        raise ValueError(f"{given.recipe} leaves the data to you; name them with --data.")
    return Train(tyro.MISSING, given.recipe, from_options(TrainConfig, options, str(given.recipe)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; faults of the input end with one sentence and exit status 2."""
    logging.basicConfig(format="%(message)s")
    arguments = sys.argv[1:] if arguments is None else arguments
    parse = partial(tyro.cli, Command, prog="iir-fast", description=__doc__, args=arguments)
    try:
        defaults = _with_recipe(arguments)
        command = parse(default=defaults) if defaults else parse()
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
