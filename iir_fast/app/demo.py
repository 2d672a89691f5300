"""The demo: CAM and IIR with the same budget on the embedded data, one table, one picture."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.table import Table

from iir_fast.app.progress import log
from iir_fast.app.runs import LoadedRun, evaluate_run, load_run
from iir_fast.app.tables import tabulate
from iir_fast.comparison import METRICS, with_spread
from iir_fast.evaluation import Metrics, largest_box, resize_scoremap
from iir_fast.localization import PREDICTED_COLOUR, TRUE_COLOUR, overlay, save_picture, scale_box
from iir_fast.methods import MethodName
from iir_fast.models import MAPS, MapName
from iir_fast.training import TrainConfig, train

ROWS: tuple[tuple[str, MethodName, MapName], ...] = (
    ("CAM", "cam", "cam"),
    ("CAM, evidence map", "cam", "evidence"),
    ("CAM, both", "cam", "both"),
    ("IIR", "iir", "cam"),
    ("IIR, evidence map", "iir", "evidence"),
    ("IIR, both", "iir", "both"),
)
METHODS: tuple[MethodName, ...] = ("cam", "iir")
TILE, GAP, CAPTION = 128, 6, 18
SHOWN = 8

Results: TypeAlias = dict[tuple[MethodName, MapName], list[Metrics]]
"""For every method and map, the metrics of each seed."""


def run_demo(config: TrainConfig, root: Path, seeds: int = 3, resume: bool = False) -> tuple[Results, Path]:
    """Train CAM and IIR from `seeds` seeds each, from `config.seed` on, evaluate all maps, and draw the first seed's.

    Budget and network are those of `config`. What comes back are the metrics, and the file of the picture.

    Raises:
        FileExistsError: `root` exists and `resume` is not set.
        ValueError: `seeds` is below 1, or the runs to resume were configured differently.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; accepted is 1 or more.")
    if root.exists() and not resume:
        raise FileExistsError(f"output folder {root} exists; choose to resume it, or name a new one.")
    metrics: Results = {(method, map): [] for _, method, map in ROWS}
    runs_to_do = list(product(range(config.seed, config.seed + seeds), METHODS))
    seconds: list[float] = []
    for number, (seed, method) in enumerate(runs_to_do):
        folder = root / f"{method}-seed{seed}"
        is_new, started = not folder.exists(), time.monotonic()
        each_takes = sum(seconds) / len(seconds) if seconds else None
        left = each_takes and f", about {timedelta(seconds=round(each_takes * (len(runs_to_do) - number)))} left"
        log(f"run {number + 1} of {len(runs_to_do)}: {method}, seed {seed}{left or ''}")
        train(config.with_options(method=method, seed=seed), folder, "resume" if resume else "refuse")
        for map, each in evaluate_run(folder, maps=MAPS).items():
            metrics[method, map].append(each)
        if is_new:  # what was there before takes less
            seconds.append(time.monotonic() - started)
    runs = {method: load_run(root / f"{method}-seed{config.seed}") for method in METHODS}
    picture = root / "localizations.png"
    save_picture(picture, draw_grid(runs, metrics, range(min(SHOWN, len(runs["cam"].dataset)))))
    return metrics, picture


def tabulate_results(metrics: Results) -> Table:
    """Make one row per method and map: mean over the seeds, with the standard deviation behind it, all in percent."""
    seeds = len(next(iter(metrics.values())))
    spread = "mean ± standard deviation" if seeds > 1 else "one seed, no spread"
    rows = [
        (name, *(with_spread([getattr(each, key) for each in metrics[method, map]]) for _, key in METRICS))
        for name, method, map in ROWS
    ]
    title = f"Embedded test set, {seeds} seed{'s' * (seeds > 1)} ({spread}), %"
    return tabulate(("localization map", *(name for name, _ in METRICS)), rows, title)


@torch.no_grad()
def draw_grid(runs: dict[MethodName, LoadedRun], metrics: Results, indices: Iterable[int]) -> Image.Image:
    """Draw a row per image: the image with its true box, then each map with the true and the predicted box.

    Boxes are cut at the threshold that GT-known localization used for that method and map.
    """
    indices = list(indices)
    height = CAPTION + len(indices) * (TILE + GAP)
    grid = Image.new("RGB", ((len(ROWS) + 1) * (TILE + GAP), height), "white")
    pen = ImageDraw.Draw(grid)
    for column, caption in enumerate(("image, true box", *(name for name, _, _ in ROWS))):
        pen.text((column * (TILE + GAP) + 2, 3), caption, fill="black")
    for row, i in enumerate(indices):
        dataset = runs["cam"].dataset
        original = dataset.image(i)
        image = original.resize((TILE, TILE), Image.Resampling.BICUBIC)
        scale = TILE / np.array([*original.size, *original.size])
        true_boxes = [((box * scale).tolist(), TRUE_COLOUR) for box in dataset.ground_truth(i).boxes]
        tiles = [overlay(image, None, true_boxes)]
        for _, method, map in ROWS:
            inputs, label = dataset[i]
            model = runs[method].model
            device = model.head.weight.device
            found = model.localize(inputs[None].to(device), torch.tensor([label], device=device), (map,))
            scoremap = resize_scoremap(found.maps[map].cpu())[0]
            fixed = metrics[method, map][0].fixed_threshold
            box = scale_box(largest_box(scoremap, fixed.value if fixed else 0.0), image.size)
            tiles.append(overlay(image, scoremap, [*true_boxes, (box, PREDICTED_COLOUR)]))
        for column, tile in enumerate(tiles):
            grid.paste(tile, (column * (TILE + GAP), CAPTION + row * (TILE + GAP)))
    return grid
