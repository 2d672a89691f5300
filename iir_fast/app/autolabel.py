"""A detector's data set out of class folders: boxes of known classes, and what there is to doubt of each."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from io import StringIO
from math import ceil
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor  # type: ignore[import-untyped]

from iir_fast import __version__
from iir_fast.app.files import write_whole
from iir_fast.app.progress import count_images, image_progress
from iir_fast.app.runs import LoadedRun, image_batches, load_run
from iir_fast.app.tables import inert
from iir_fast.app.threads import in_order
from iir_fast.data import has_split, open_split
from iir_fast.data.records import SPLITS
from iir_fast.evaluation import fit_image, own_threshold, refine, resize_scoremap
from iir_fast.localization import FoundObject, ImageResult
from iir_fast.localization.doubt import Doubt, weigh
from iir_fast.localization.label_folders import write_data_yaml
from iir_fast.localization.outline import find_outlines
from iir_fast.localization.writing import CORNERS, YOLO, write_part
from iir_fast.names import DEFAULT_MAP, DEFAULT_REFINEMENT, MAPS, BoxFormat, MapName, Refinement
from iir_fast.training import TrainConfig, read_recipe, train

COLUMNS = ("doubt", "agreement", "stability", "probability", "part", "index", "path", "label", *CORNERS)
DEFAULTS = {
    **{"backbone": "tf_efficientnet_lite0", "weights": "package", "freeze_backbone": True},
    **{"image_size": 224, "hidden": 512, "learning_rate": 1e-3},
}
"""How a localizer is trained unless a recipe says otherwise: as in configs/compare/photos.yaml."""
SEEN = 4800
"""Images that this training goes through, whole passes: 4 over 1,200 images, more over fewer."""


def autolabel(
    photos: Path,
    out: Path,
    form: BoxFormat = "yolo",
    *,
    model: Path | None = None,
    recipe: Path | None = None,
    refinement: Refinement = DEFAULT_REFINEMENT,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Make a detector's data set of class folders, with review.csv; everything is checked before anything is computed.

    The arguments are those of `iir-fast autolabel`. What comes back are the lines of the review list as `review_row`
    makes them, in the order of the images.

    Raises:
        FileExistsError: `out` is there.
        ValueError: there are no class folders, or no two parts of them.
        Interrupted, OSError, ValueError: as `train` and `load_run`.
    """
    if out.exists():
        raise FileExistsError(f"output folder {out} exists; name a new one.")
    root = Path(os.path.abspath(photos.expanduser()))
    source = f"images:{root}"
    parts = _parts(source)
    if model is None:
        model = out / "run"
        others = [split for split in parts.values() if split != "train"]
        train(_config(source, recipe, device), model, evaluated=others)
    runs = {part: load_run(model, split, data=source, device=device) for part, split in parts.items()}
    classes = next(iter(runs.values())).spec.classes
    origin = f"{model.resolve().name}, iir-fast {__version__}"
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    with image_progress() as progress:
        for part, run in runs.items():
            found = label_images(run, root, part, refinement, progress, rows)
            write_part(found, out, part, form, classes, origin)
    write_review(out / "review.csv", rows)
    if form in YOLO:
        write_data_yaml(out, {part: f"{part}/images" for part in runs}, classes, origin)
    return rows


def label_images(
    run: LoadedRun, root: Path, part: str, refinement: Refinement, progress: Progress, rows: list[dict[str, Any]]
) -> Iterator[ImageResult]:
    """Localize in each image of a split the class that the data say it has; each map is cut at its own threshold.

    The images lie below `root`, and the split becomes a `part` of the new data set. `rows` gets a line of the review
    list for each image.
    """
    dataset, frozen = run.dataset, run.config.model.freeze_backbone
    on_images = count_images(progress, f"label {part}", len(dataset))
    first = 0

    def cut_out(job: tuple[int, dict[MapName, Tensor], float]) -> tuple[ImageResult, Doubt]:
        index, maps, probability = job
        picture, label = dataset.image(index), dataset.labels[index]
        others = {name: resize_scoremap(each) for name, each in maps.items()}
        cut = scoremap = others.pop(DEFAULT_MAP)
        if refinement != "none":
            cut = refine(scoremap, fit_image(picture), refinement)
        tau = own_threshold(cut, refinement)
        box, polygon = find_outlines(cut, tau, picture.size)[0]
        found = FoundObject(dataset.classes[label], label, probability, box, maps[DEFAULT_MAP], polygon)
        image = ImageResult(index, str(root / dataset.ids[index]), picture.size, (found,))
        return image, weigh(cut, tau, scoremap, tuple(others.values()), probability)

    for inputs, labels in image_batches(run, progress):
        device = run.model.head.weight.device
        found = run.model.localize(inputs.to(device), labels.to(device), MAPS, from_features=frozen)
        known = found.logits.double().softmax(dim=1).cpu().gather(1, labels[:, None]).squeeze(1).tolist()
        maps = {name: each.float().cpu() for name, each in found.maps.items()}
        jobs = [
            (first + row, {name: each[row] for name, each in maps.items()}, probability)
            for row, probability in enumerate(known)
        ]
        for image, doubt in in_order(cut_out, jobs, len(jobs)):
            rows.append(review_row(part, image, doubt))
            yield image
        first += len(labels)
        on_images(len(labels))


def review_row(part: str, image: ImageResult, doubt: Doubt) -> dict[str, Any]:
    """Make a line of the review list, numbers unrounded."""
    [found] = image.objects
    place = {"part": part, "index": image.index, "path": image.path, "label": found.label}
    return {"doubt": doubt.value} | asdict(doubt) | place | dict(zip(CORNERS, found.box, strict=True))


def write_review(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of `review_row` as CSV, the most doubtful box first, of equal ones the earlier; an apostrophe goes
    before what spreadsheets would run."""
    out = StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: -row["doubt"]):
        table.writerow({name: f"{each:.4f}" if isinstance(each, float) else inert(each) for name, each in row.items()})
    # Names of files need be no UTF-8.
    write_whole(file, out.getvalue().encode(errors="backslashreplace"))


def _config(source: str, recipe: Path | None, device: str) -> TrainConfig:
    given = {"data": source, "device": device}
    if recipe:
        return TrainConfig.from_options(read_recipe(recipe) | given, str(recipe))
    images = len(open_split(source, "train", pil_to_tensor))
    return TrainConfig().with_options(**DEFAULTS, epochs=ceil(SEEN / images), **given)


def _parts(source: str) -> dict[str, str]:
    """Name the parts of the new data set, and the split that each is made of."""
    found = [split for split in SPLITS if has_split(source, split)]
    if "train" not in found or len(found) == 1:
        splits = f"the split {found[0]} alone" if found else "no class folders"
        accepted = "a folder of one folder of images for each class, or of train, and val or test, with such folders"
        raise ValueError(f"photos are {source.removeprefix('images:')}, which holds {splits}; accepted is {accepted}.")
    return {"val" if split == "test" and "val" not in found else split: split for split in found}
