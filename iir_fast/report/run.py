"""From the folder of a run to its report."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.files import one_line, read_text
from iir_fast.app.progress import count_images, image_progress
from iir_fast.app.runs import evaluate_run, image_batches, load_run, read_config, result_name
from iir_fast.data import LocalizationDataset
from iir_fast.data.listing import ListedDataset
from iir_fast.evaluation import thresholds
from iir_fast.localization import PREDICTED_COLOUR, TRUE_COLOUR
from iir_fast.models import MAPS, MapName
from iir_fast.report.images import report_images
from iir_fast.report.page import check_page, write_page
from iir_fast.training import RunFolder

STEP = 0.01
"""Distance of two positions of the page's threshold slider."""
START = 0.3
"""Where the slider stands at first, if no evaluation has a threshold."""


def write_report(
    root: Path,
    split: str = "test",
    maps: tuple[MapName, ...] = MAPS,
    *,
    out: Path | None = None,
    limit: int | None = None,
    data: str | None = None,
    device: str = "auto",
) -> Path:
    """Write the report of a run: its metrics, curves, and every image with maps, mask and boxes.

    Metrics and curves are those of the run's `metrics.json`; maps without an evaluation there are evaluated first. The
    page needs neither network nor server, and an image file only where its original is asked for. Of more than 500
    images it keeps the data in a folder of its own, `<page's stem>_files`, and loads what is looked at.

    Args:
        root: the run's folder.
        split: which split of the data.
        maps: which localization maps; the page opens with the first.
        out: the page; None: `report.html` in the run's folder. A report that is there is replaced once the new one is
            whole.
        limit: show only so many images, evenly spaced over the split; None: all.
        data: a source of data, as `open_split` takes it; what the run was trained on by default.
        device: "auto", "cpu" or "cuda".

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: the folder holds no run, or the data no such split.
        FileExistsError: `out`, or a part of its data, is there and is no report.
        ValueError: `limit` is below 1, `maps` is empty, `out` does not end in .html or is missing for other data than
            the run's own, or the evaluation in `metrics.json` is of another number of images.
    """
    file = out or root / "report.html"
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; accepted is 1 or more.")
    if not maps:
        raise ValueError(f"maps is empty; name at least one of {', '.join(MAPS)}.")
    if file.suffix != ".html":
        raise ValueError(f"out is {file}; a file that ends in .html is accepted.")
    check_page(file)
    name = result_name(read_config(root), split, data)
    if name != split and out is None:
        raise ValueError(
            f"out is not given, and {file} is for the run's own data; name a page for those of {one_line([data])}."
        )
    run = load_run(root, split, data=data, device=device)
    folder, count = RunFolder(root), len(run.dataset)
    evaluated = folder.sound_metrics().get(name, {})
    missing = tuple(map for map in maps if map not in evaluated)
    if missing:
        evaluate_run(root, split, missing, data=data, device=device)
        evaluated = folder.read_metrics()[name]
    metrics = {map: evaluated[map] for map in maps}
    for map, result in metrics.items():
        if result.get("images") != count:
            raise ValueError(
                f"{folder.metrics} evaluates {map} maps of {result.get('images')} {name} images, and the data have "
                f"{count}; evaluate the run again."
            )
    shown = min(limit or count, count)
    indices = [i * count // shown for i in range(shown)]
    taus = _slider(metrics)
    overview = {
        "run": root.resolve().name,
        "split": name,
        "images": count,
        "classes": run.dataset.classes,
        "taus": taus.tolist(),
        "start": {map: int(np.abs(taus - _fixed_threshold(result)).argmin()) for map, result in metrics.items()},
        "metrics": metrics,
        "configuration": read_text(folder.config),
        "version": version("iir-fast"),
        "originals": _originals(run.dataset, file),
        "colours": {"true": TRUE_COLOUR, "predicted": PREDICTED_COLOUR},
    }
    with image_progress() as progress:
        batches = image_batches(run, progress, indices)
        on_image = count_images(progress, f"report {split}", shown)
        images = report_images(run, batches, indices, maps, taus, on_image)
        write_page(file, overview, maps, images, shown)
    return file


def _originals(dataset: LocalizationDataset, page: Path) -> str | None:
    """Say where the image files lie, seen from the page; None where they are no files of their own."""
    root = dataset.listing.root if isinstance(dataset, ListedDataset) else None
    return os.path.relpath(root.resolve(), page.resolve().parent) if isinstance(root, Path) else None


def _fixed_threshold(result: dict[str, Any]) -> float:
    fixed = result.get("fixed_threshold")
    return fixed["value"] if fixed else START


def _slider(metrics: dict[MapName, dict[str, Any]]) -> NDArray[np.float64]:
    """List thresholds in ascending order: a grid, with the evaluation's own ones in place of what lies next to them."""
    own = np.unique([_fixed_threshold(result) for result in metrics.values()])
    grid = thresholds(STEP)
    near = np.abs(grid[:, None] - own).min(axis=1) < 1e-9
    return np.sort(np.append(grid[~near], own))
