"""`iir-fast localize`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import tyro

from iir_fast.app.files import remove_leftovers, whole_file
from iir_fast.app.pretrained import pretrained
from iir_fast.app.progress import image_progress, log
from iir_fast.app.runs import load
from iir_fast.data import BrokenImageError, find_images, read_image
from iir_fast.evaluation import Refinement
from iir_fast.localization import (
    PREDICTED_COLOUR,
    BoxFormat,
    ImageResult,
    Predictor,
    overlay,
    save_picture,
    write_boxes,
)
from iir_fast.models import MapName


@dataclass(frozen=True)
class Localize:
    """Find the object in images: a box, its class and the class's probability as JSON, CSV or COCO, overlays as PNG.

    Boxes are x0, y0, x1, y1 in pixels of the upright image, x1 and y1 exclusive; in COCO x, y, width, height.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, folders with images at any depth, quoted globs ("photos/**/*.jpg"), or - for paths on standard
    input, one a line."""
    model: Path | None = None
    """Folder of a run, or a checkpoint."""
    pretrained: str | None = None
    """In place of --model: a timm classifier, whose own classes are localized without any training."""
    map: MapName | None = None
    """Localization map; by default both, or cam, which is all that a classifier has."""
    threshold: float | None = None
    """Share of the map's maximum at which the object is cut out; by default the one of the run's last evaluation, or
    GrabCut's own edge."""
    refine: Refinement = "none"
    """Refine score maps by their images: "guided" (guided filter) or "grabcut", whose edge no box needs to choose."""
    top_k: int = 1
    """How many classes to localize in each image, the most probable first, each with a box of its own."""
    format: BoxFormat | None = None
    """Form of the output; by default CSV where --output ends in .csv, else JSON."""
    output: Path | None = None
    """File for the boxes in place of standard output."""
    overlays: Path | None = None
    """Folder for overlays, one PNG per box, numbered as the images; further classes' end in -2, -3 and so on."""
    batch_size: int = 32
    """Images that the network reads at once."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        paths = find_images(_named(self.images))
        if not paths:
            raise ValueError("images is empty; name at least one file, folder or glob.")
        predictor = self._predictor()
        if self.threshold is None:
            chosen = predictor.threshold(self.map, self.refine)
            log(f"threshold {chosen.value:.2f}, chosen on: {chosen.chosen_on}.")
        broken: list[BrokenImageError] = []

        def skip(error: BrokenImageError) -> None:
            if not self.skip_broken:
                raise error
            broken.append(error)
            log(f"skipped: {error}")

        found = predictor.localize(
            paths,
            self.map,
            self.threshold,
            refinement=self.refine,
            top_k=self.top_k,
            batch_size=self.batch_size,
            on_broken=skip,
        )
        form = self.format or ("csv" if self.output and self.output.suffix == ".csv" else "json")
        failures: list[BaseException] = []
        with self._out() as out:
            watched = self._watched(found, len(paths), bar=not out.isatty())
            write_boxes(_until_failure(watched, failures), out, form, predictor.spec.classes)
        if failures:
            raise failures[0]
        if broken:
            log(f"skipped {len(broken)} of {len(paths)} images that cannot be read.")

    def _predictor(self) -> Predictor:
        if self.model and not self.pretrained:
            return load(self.model, self.device)
        if self.pretrained and not self.model:
            return pretrained(self.pretrained, self.device)
        raise ValueError("choose one of --model, a run of your own, and --pretrained, a classifier as it is.")

    @contextmanager
    def _out(self) -> Iterator[TextIO]:
        if self.output is None:
            # Taken before the bar starts: while one runs, rich sends what goes to sys.stdout to the bar's console.
            yield sys.stdout
            return
        file = self.output.resolve()  # /dev/stdout is a link
        if file.exists() and not file.is_file():  # a device or a pipe is there to be written to
            with file.open("w", encoding="utf-8", newline="") as out:
                yield out
            return
        remove_leftovers(file.parent)
        with whole_file(file) as aside, aside.open("w", encoding="utf-8", newline="") as out:
            yield out

    def _watched(self, found: Iterable[ImageResult], total: int, bar: bool) -> Iterator[ImageResult]:
        """Draw what passes through, and count it in a bar unless the terminal shows it anyway."""
        if self.overlays:
            self.overlays.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.overlays)
        with image_progress(shown=bar) as progress:
            task = progress.add_task("localize", total=total, note="")
            for image in found:
                if self.overlays:
                    _draw(image, self.overlays)
                progress.update(task, completed=image.index + 1)
                yield image
            progress.update(task, completed=total)


def _until_failure(found: Iterable[ImageResult], failures: list[BaseException]) -> Iterator[ImageResult]:
    """End where an image fails, so that the boxes of those before become a whole file; the error goes to `failures`."""
    try:
        yield from found
    except (Exception, KeyboardInterrupt) as error:
        failures.append(error)


def _named(images: Sequence[str]) -> Iterator[str]:
    for each in images:
        if each == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield each


def _draw(image: ImageResult, folder: Path) -> None:
    path = Path(str(image.path))
    picture = read_image(path)
    for rank, each in enumerate(image.objects, start=1):
        name = f"{image.index:05d}-{path.stem}{'' if rank == 1 else f'-{rank}'}.png"
        save_picture(folder / name, overlay(picture, each.scoremap, [(each.box, PREDICTED_COLOUR)]))
