"""`iir-fast autolabel`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from iir_fast.app.commands.localize import say_empty
from iir_fast.app.progress import log
from iir_fast.names import DEFAULT_REFINEMENT, BoxFormat, Refinement


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
    refine: Refinement = DEFAULT_REFINEMENT
    """Refine score maps by their images, as `localize --refine` does; grabcut takes some 0.3 s an image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        from iir_fast.app.autolabel import autolabel

        if self.model and self.recipe:
            raise ValueError("model and recipe exclude each other: a run of your own is not trained again.")
        rows = autolabel(
            self.photos,
            self.out,
            self.to,
            model=self.model,
            recipe=self.recipe,
            refinement=self.refine,
            device=self.device,
        )
        say_empty([row["path"] for row in rows if row["x0"] >= row["x1"] or row["y0"] >= row["y1"]])
        log(f"{len(rows):,} images in {self.out}; {self.out / 'review.csv'} has the most doubtful first.")
