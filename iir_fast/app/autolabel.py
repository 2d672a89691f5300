"""A detector's data set out of class folders: boxes of known classes, and what there is to doubt of each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from iir_fast.app.files import write_whole
from iir_fast.app.progress import count_images
from iir_fast.app.runs import LoadedRun, image_batches
from iir_fast.evaluation import Refinement, fit_image, own_threshold, refine, resize_scoremap
from iir_fast.localization import FoundObject, ImageResult
from iir_fast.localization.doubt import Doubt, weigh
from iir_fast.localization.outline import find_outlines
from iir_fast.localization.writing import CORNERS, inert
from iir_fast.models import DEFAULT_MAP, MAPS

COLUMNS = ("doubt", "agreement", "stability", "probability", "part", "index", "path", "label", *CORNERS)


class Labelled(NamedTuple):
    """An image with the box of its class, and the doubt of that."""

    image: ImageResult
    doubt: Doubt


def label_images(
    run: LoadedRun, root: Path, part: str, refinement: Refinement, progress: Progress
) -> Iterator[Labelled]:
    """Localize in each image of a split the class that the data say it has; each map is cut at its own threshold.

    Args:
        run: the localizer, and the split.
        root: folder that the split's images are below.
        part: what the split becomes, for the bar.
        refinement: how the map that the box is cut out of is refined.
        progress: gets the bar.
    """
    dataset, frozen = run.dataset, run.config.model.freeze_backbone
    on_images = count_images(progress, f"label {part}", len(dataset))
    index = 0
    for inputs, labels in image_batches(run, progress):
        device = run.model.head.weight.device
        found = run.model.localize(inputs.to(device), labels.to(device), MAPS, from_features=frozen)
        probabilities = found.logits.double().softmax(dim=1).cpu()
        maps = {name: each.float().cpu() for name, each in found.maps.items()}
        for row, label in enumerate(labels.tolist()):
            others = {name: resize_scoremap(each[row]) for name, each in maps.items()}
            cut = scoremap = others.pop(DEFAULT_MAP)
            picture = dataset.image(index)
            if refinement != "none":
                cut = refine(scoremap, fit_image(picture), refinement)
            tau = own_threshold(cut, refinement)
            box, polygon = find_outlines(cut, tau, picture.size)[0]
            probability = float(probabilities[row, label])
            found_map = maps[DEFAULT_MAP][row]
            objects = (FoundObject(dataset.classes[label], label, probability, box, found_map, polygon),)
            image = ImageResult(index, str(root / dataset.ids[index]), picture.size, objects)
            yield Labelled(image, weigh(cut, tau, scoremap, tuple(others.values()), probability))
            index += 1
        on_images(len(labels))


def review_row(part: str, labelled: Labelled) -> dict[str, Any]:
    """Make a line of the review list, numbers unrounded."""
    image, doubt = labelled
    [found] = image.objects
    place = {"part": part, "index": image.index, "path": image.path, "label": found.label}
    return {"doubt": doubt.value} | asdict(doubt) | place | dict(zip(CORNERS, found.box, strict=True))


def write_review(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the review list as CSV, the most doubtful box first; an apostrophe goes before what spreadsheets would run.

    Args:
        file: where it goes, in a folder that is there.
        rows: as `review_row` makes them; of equal doubt the earlier one comes first.
    """
    out = StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: -row["doubt"]):
        table.writerow({name: f"{each:.4f}" if isinstance(each, float) else inert(each) for name, each in row.items()})
    # Names of files need be no UTF-8.
    write_whole(file, out.getvalue().encode(errors="backslashreplace"))
