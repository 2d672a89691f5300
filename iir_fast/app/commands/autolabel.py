"""`iir-fast autolabel`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import tyro
from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast import __version__
from iir_fast.app.autolabel import Labelled, label_images, review_row, write_review
from iir_fast.app.commands.localize import say_empty
from iir_fast.app.progress import image_progress, log
from iir_fast.app.runs import load_run
from iir_fast.data import has_split, open_split
from iir_fast.data.records import SPLITS
from iir_fast.evaluation import Refinement
from iir_fast.localization import BoxFormat, ImageResult
from iir_fast.localization.label_folders import write_data_yaml
from iir_fast.localization.writing import YOLO, write_part
from iir_fast.training import TrainConfig, flat_options, read_yaml, train

DEFAULTS = {
    **{"backbone": "tf_efficientnet_lite0", "weights": "package", "freeze_backbone": True},
    **{"image_size": 224, "hidden": 512, "learning_rate": 1e-3},
}
"""How a localizer is trained unless a recipe says otherwise: as in configs/compare/photos.yaml."""
SEEN = 4800
"""Images that this training goes through, whole passes: 4 over 1,200 images, more over fewer."""
REVIEW = "review.csv"


@dataclass(frozen=True)
class Autolabel:
    """Make a detector's data set of class folders: train, find a box in each image, list the doubtful ones.

    No boxes are read, even where there are some. Every image gets one, of the class that its folder says.
    """

    photos: tyro.conf.Positional[Path]
    """Folder of one folder of images for each class, of which a fifth becomes val; or of train, and val or test, with
    such folders."""
    out: tyro.conf.Positional[Path]
    """New folder for the data set: a part for each split, review.csv, the most doubtful box first, and, where one was
    trained, run, the folder of the localizer."""
    to: BoxFormat = "yolo"
    """Format, as `localize --format` has it; yolo is what detectors are trained on, with data.yaml."""
    model: Path | None = None
    """Folder of a run that knows the classes, in place of training one."""
    recipe: Path | None = None
    """YAML of the options of training; by default frozen features of tf_efficientnet_lite0, whose weights come with
    iir-fast[lite0]."""
    refine: Refinement = "none"
    """Refine score maps by their images, as `localize --refine` does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        if self.out.exists():
            raise FileExistsError(f"output folder {self.out} exists; name a new one.")
        if self.model and self.recipe:
            raise ValueError("model and recipe exclude each other: a run of your own is not trained again.")
        root = Path(os.path.abspath(self.photos.expanduser()))
        source = f"images:{root}"
        parts = _parts(source)
        if (model := self.model) is None:
            model = self.out / "run"
            others = [split for split in parts.values() if split != "train"]
            if not train(self._config(source), model, evaluated=others).by_first_rank:
                return
        runs = {part: load_run(model, split, data=source, device=self.device) for part, split in parts.items()}
        classes = next(iter(runs.values())).spec.classes
        origin = f"{model.resolve().name}, iir-fast {__version__}"
        rows: list[dict[str, Any]] = []
        self.out.mkdir(parents=True, exist_ok=True)
        with image_progress() as progress:
            for part, run in runs.items():
                labelled = label_images(run, root, part, self.refine, progress)
                write_part(_listed(part, labelled, rows), self.out, part, self.to, classes, origin)
        say_empty([row["path"] for row in rows if row["x0"] >= row["x1"] or row["y0"] >= row["y1"]])
        write_review(self.out / REVIEW, rows)
        if self.to in YOLO:
            write_data_yaml(self.out, {part: f"{part}/images" for part in runs}, classes, origin)
        log(f"{len(rows):,} images in {self.out}; {self.out / REVIEW} has the most doubtful first.")

    def _config(self, source: str) -> TrainConfig:
        given = {"data": source, "device": self.device}
        if self.recipe:
            origin = str(self.recipe)
            options = flat_options(read_yaml(self.recipe.read_text(encoding="utf-8"), origin), origin)
            return TrainConfig.from_options(options | given, origin)
        images = len(open_split(source, "train", pil_to_tensor))
        return TrainConfig().with_options(**DEFAULTS, epochs=max(1, ceil(SEEN / images)), **given)


def _listed(part: str, labelled: Iterable[Labelled], rows: list[dict[str, Any]]) -> Iterator[ImageResult]:
    """Pass images on, and keep of each a line of the review list."""
    for each in labelled:
        rows.append(review_row(part, each))
        yield each.image


def _parts(source: str) -> dict[str, str]:
    """Name the parts of the new data set, and the split that each is made of."""
    found = [split for split in SPLITS if has_split(source, split)]
    if "train" not in found or len(found) == 1:
        splits = f"the split {found[0]} alone" if found else "no class folders"
        accepted = "a folder of one folder of images for each class, or of train, and val or test, with such folders"
        raise ValueError(f"photos are {source.removeprefix('images:')}, which holds {splits}; accepted is {accepted}.")
    return {"val" if split == "test" and "val" not in found else split: split for split in found}
