"""`iir-fast evaluate` and `iir-fast score`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from iir_fast.app.progress import count_images, image_progress
from iir_fast.app.tables import metrics_csv, metrics_table, paper_table
from iir_fast.names import MAPS, MapName, Refinement

if TYPE_CHECKING:
    from iir_fast.evaluation import FixedThreshold, Metrics, Verdict


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the localizer of a run: MaxBoxAcc, MaxBoxAccV2, PxAP, pIoU, GT-known, Top-1 and Top-5 Loc, accuracy."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run; its metrics.json takes up the result."""
    split: str = "test"
    """Split to evaluate."""
    maps: tuple[MapName, ...] = MAPS
    """Localization maps: both, evidence, cam."""
    data: str | None = None
    """What to evaluate on, as in `train`; what the run was trained on by default. Results of other data stand apart."""
    step: float = 0.01
    """Distance of two thresholds; the protocol's training runs use 0.001."""
    threshold: float | None = None
    """Fixed threshold of GT-known and Top-k; by default the best one on the evaluated split, and the table says so."""
    threshold_from: str | None = None
    """Split that chose --threshold."""
    refine: Refinement = "none"
    """Refine score maps by their images: "guided" (guided filter) or "grabcut", whose own edge is at 0.5."""
    save_maps: Path | None = None
    """Folder for the score maps of the evaluated maps, MAP/IMAGE.npy, as `score` reads them."""
    details: Path | None = None
    """Folder for images.csv (class, predicted class, IoU, threshold and kind of error of each image) and classes.csv;
    the table then has the kinds of error, too, and every map is made twice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""
    json: bool = False
    """Print JSON in place of the table: everything, and every digit."""
    csv: bool = False
    """Print the same as CSV, a line per figure and a column per map."""
    paper: bool = False
    """Print a row per map as papers have it, in Markdown, with every threshold and the split that chose it."""

    def run(self) -> None:
        from iir_fast.app.runs import evaluate_run, read_config

        form = _form(json=self.json, csv=self.csv, paper=self.paper)
        metrics = evaluate_run(
            self.run_folder,
            self.split,
            self.maps,
            data=self.data,
            step=self.step,
            fixed_threshold=_fixed_threshold(self.threshold, self.threshold_from),
            save_maps=self.save_maps,
            details=self.details,
            refinement=self.refine,
            device=self.device,
        )
        if form == "json":
            print(json.dumps({map: result.to_dict() for map, result in metrics.items()}))
        elif form == "paper":
            config = read_config(self.run_folder)
            print(paper_table(metrics, config.model.backbone, config.method.name))
        else:
            _print(metrics, form)


@dataclass(frozen=True)
class Score:
    """Evaluate score maps on disk, whoever made them, by all metrics of `evaluate`."""

    scoremaps: tyro.conf.Positional[Path]
    """Folder with IMAGE.npy or IMAGE.npz for every image of the split, or one such file of all maps [N, H, W] in the
    split's order; 224 x 224 in [0, 1] but for the next three options."""
    data: str
    """Whose images they are, for the ground truth; as `train --data` takes it."""
    resize: bool = False
    """Take maps of any size, resize them to 224 x 224 (bicubic) and stretch each to [0, 1], as the protocol does."""
    normalize: bool = False
    """Stretch each map to [0, 1]; without it, values are taken as they are."""
    scale: float | None = None
    """Number that stands for 1 in the maps, e.g. 255; integers need it unless they are stretched."""
    predictions: Path | None = None
    """Ranked classes for Top-1 and Top-5 Loc: CSV lines IMAGE,CLASS,CLASS,... with names or numbers of classes, or .npy
    [N, k] of numbers in the split's order."""
    split: str = "test"
    """Split to evaluate."""
    raw_orientation: bool = False
    """Boxes are in the pixels of the images as they are stored; by default one's own images are turned upright."""
    step: float = 0.01
    """Distance of two thresholds; the protocol's training runs use 0.001."""
    threshold: float | None = None
    """Fixed threshold of GT-known and Top-k; by default the best one on the evaluated split, and the table says so."""
    threshold_from: str | None = None
    """Split that chose --threshold."""
    details: Path | None = None
    """Folder for images.csv (class, predicted class, IoU, threshold and kind of error of each image) and classes.csv;
    the table then has the kinds of error, too, and every map is read twice."""
    json: bool = False
    """Print JSON in place of the table: everything, and every digit."""
    csv: bool = False
    """Print the same as CSV, a line per figure and a column per map."""
    paper: bool = False
    """Print a row per map as papers have it, in Markdown, with every threshold and the split that chose it."""

    def run(self) -> None:
        from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

        from iir_fast.app.details import collect, write_details
        from iir_fast.data import absolute_source, open_split, training_classes
        from iir_fast.evaluation import Evaluator, StoredMaps, evaluate_scoremaps

        form = _form(json=self.json, csv=self.csv, paper=self.paper)
        evaluator = Evaluator(self.split, self.step, _fixed_threshold(self.threshold, self.threshold_from))
        raw, classes = self.raw_orientation, None
        if self.predictions:
            classes = training_classes(self.data, self.split, raw_orientation=raw)
        # Images are not looked at, whatever would be made of them.
        dataset = open_split(self.data, self.split, pil_to_tensor, classes=classes, raw_orientation=raw)
        maps = StoredMaps(self.scoremaps, dataset.ids, resize=self.resize, normalize=self.normalize, scale=self.scale)
        name = self.scoremaps.resolve().name
        verdicts: list[Verdict] = []
        if self.details:
            self.details.mkdir(parents=True, exist_ok=True)  # now, rather than fail when all is done
        with image_progress() as progress:
            on_image = count_images(progress, f"boxes of {name} maps", len(dataset))
            on_verdict = None
            if self.details:
                on_verdict = collect(verdicts, count_images(progress, f"errors of {name} maps", len(dataset)))
            measured = evaluate_scoremaps(maps, dataset, evaluator, on_image, self.predictions, on_verdict)
        metrics = replace(measured, data=absolute_source(self.data))
        if self.details:
            write_details(self.details, {name: verdicts}, dataset.classes)
        if form == "json":
            print(json.dumps(metrics.to_dict()))
        else:
            _print({name: metrics}, form)


def _form(**asked: bool) -> str:
    """Name the one form that is asked for, or "table"."""
    names = [name for name, is_asked in asked.items() if is_asked]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} exclude each other.")
    return names[0] if names else "table"


def _print(metrics: Mapping[str, Metrics] | Mapping[MapName, Metrics], form: str) -> None:
    if form == "csv":
        print(metrics_csv(metrics), end="")
    elif form == "paper":
        print(paper_table(metrics))
    else:
        Console().print(metrics_table(metrics))


def _fixed_threshold(value: float | None, chosen_on: str | None) -> FixedThreshold | None:
    from iir_fast.evaluation import FixedThreshold

    if (value is None) != (chosen_on is None):
        raise ValueError("threshold and threshold_from belong together: a figure must say which split chose it.")
    return None if value is None else FixedThreshold(value, str(chosen_on))
