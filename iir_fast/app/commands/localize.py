"""`iir-fast localize`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import tyro

from iir_fast import __version__
from iir_fast.app.files import open_text, remove_leftovers, whole_file
from iir_fast.app.progress import image_progress, log
from iir_fast.app.tables import threshold_text
from iir_fast.names import DEFAULT_REFINEMENT, BoxFormat, MapName, PictureFormat, Refinement

if TYPE_CHECKING:
    from iir_fast.localization import ImageResult, Predictor


@dataclass(frozen=True)
class Localize:
    """Find the object in images: a box, its class and the class's probability in many formats; overlays, masks as PNG.

    In JSON and CSV boxes are x0, y0, x1, y1 in pixels of the upright image, x1 and y1 exclusive.
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
    """Share of the map's maximum at which the object is cut out; by default each image's own, or with --refine none the
    one of the run's last evaluation, if there was one."""
    refine: Refinement = DEFAULT_REFINEMENT
    """Refine score maps by their images: "grabcut", whose edge no box needs to choose and which takes some 0.3 s of a
    processor an image, "guided" (guided filter) or "none"."""
    top_k: int = 1
    """How many classes to localize in each image, the most probable first, each with a box of its own."""
    max_objects: int = 1
    """How many objects of each class at most, the largest first, down to a tenth of the largest one's area."""
    without_object: tuple[str, ...] = ()
    """Classes that have no object, such as the "normal" of an inspection: their boxes have no area, and their
    probability says how sure it is that there is nothing."""
    format: BoxFormat | None = None
    """Format of the boxes; by default the one that the suffix of --output names, .json or .csv. yolo, yolo-seg and voc
    make a folder, --output, with links to the images; yolo-seg and coco have outlines, coco-rle has masks."""
    output: Path | None = None
    """File or folder for the boxes in place of standard output."""
    overlays: Path | None = None
    """Folder for overlays, numbered as the images: one for each class, with its map and boxes; those of further classes
    end in -2, -3 and so on."""
    overlay_format: PictureFormat = "png"
    """Format of the overlays."""
    overlay_size: int | None = None
    """Longest side of the overlays in pixels; by default, and at most, that of the images."""
    overlay_opacity: float = 0.45
    """Of the map over the image, 0 to 1."""
    masks: Path | None = None
    """Folder for masks of the images' size, white on the object, one PNG per box, numbered as the images; those of
    further boxes end in -2, -3 and so on."""
    batch_size: int = 32
    """Images that the network reads at once."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        from iir_fast.data import BrokenImageError, find_images
        from iir_fast.localization import choose_format, write_boxes

        form = choose_format(self.output, self.format)
        for folder in self._picture_folders():
            folder.mkdir(parents=True, exist_ok=True)
        paths = find_images(_named(self.images))
        if not paths:
            raise ValueError("images is empty; name at least one file, folder or glob.")
        predictor = self._predictor()
        if self.threshold is None:
            chosen = predictor.threshold(self.map, self.refine)
            log(
                f"threshold {threshold_text(chosen.value)}, chosen on: {chosen.chosen_on}."
                if chosen
                else "threshold: each image's own, which no box has chosen."
            )
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
            max_objects=self.max_objects,
            without_object=self.without_object,
            batch_size=self.batch_size,
            on_broken=skip,
        )
        model = f"{self.model.resolve().name if self.model else self.pretrained}, iir-fast {__version__}"
        failures: list[BaseException] = []
        with self._out(form) as out:
            watched = self._watched(found, len(paths), bar=isinstance(out, Path) or not out.isatty())
            write_boxes(_until_failure(watched, failures), out, form, predictor.spec.classes, model)
        if failures:
            raise failures[0]
        if broken:
            log(f"skipped {len(broken)} of {len(paths)} images that cannot be read.")

    def _predictor(self) -> Predictor:
        from iir_fast.app.pretrained import pretrained
        from iir_fast.app.runs import load

        if self.model and not self.pretrained:
            return load(self.model, self.device)
        if self.pretrained and not self.model:
            return pretrained(self.pretrained, self.device)
        raise ValueError("choose one of --model, a run of your own, and --pretrained, a classifier as it is.")

    @contextmanager
    def _out(self, form: BoxFormat) -> Iterator[TextIO | Path]:
        from iir_fast.localization import FOLDERS

        if self.output is None:
            # Taken before the bar starts: while one runs, rich sends what goes to sys.stdout to the bar's console.
            yield sys.stdout
        elif form in FOLDERS:
            yield self.output
        # Before links are followed: /dev/stdout is one, and of a pipe to a name that is no path.
        elif self.output.exists() and not self.output.is_file():  # a device or a pipe is there to be written to
            with open_text(self.output) as out:
                yield out
        else:
            file = self.output.resolve()
            remove_leftovers(file.parent)
            with whole_file(file) as aside, open_text(aside) as out:
                yield out

    def _watched(self, found: Iterable[ImageResult], total: int, bar: bool) -> Iterator[ImageResult]:
        """Draw what passes through, and count it in a bar unless the terminal shows it anyway."""
        for folder in self._picture_folders():
            remove_leftovers(folder)
        empty: list[str] = []
        with image_progress(shown=bar) as progress:
            task = progress.add_task("localize", total=total, note="")
            for image in found:
                self._draw(image)
                shown = (each for each in image.objects if each.label not in self.without_object)
                empty += [str(image.path) for each in shown if each.is_empty]
                progress.update(task, completed=image.index + 1)
                yield image
            progress.update(task, completed=total)
        say_empty(empty)

    def _picture_folders(self) -> list[Path]:
        return [folder for folder in (self.overlays, self.masks) if folder]

    def _draw(self, image: ImageResult) -> None:
        """Save the pictures that are asked for."""
        import numpy as np
        from PIL import Image

        from iir_fast.localization import save_picture

        def name(rank: int, form: str) -> str:
            return f"{image.index:05d}-{image.file.stem}{f'-{rank + 1}' if rank else ''}.{form}"

        if self.overlays:
            whole = image.image
            for rank in range(len(image.by_class)):
                drawn = image.draw(rank, size=self.overlay_size, opacity=self.overlay_opacity, image=whole)
                save_picture(self.overlays / name(rank, self.overlay_format), drawn)
        if self.masks:
            for rank, mask in enumerate(image.masks):
                save_picture(self.masks / name(rank, "png"), Image.fromarray(mask * np.uint8(255)))


def say_empty(paths: Sequence[str]) -> None:
    """Count the boxes without area, those of the images at `paths`, if any."""
    if paths:
        log(f"{len(paths)} boxes have no area, as their maps are constant or their images tiny; first: {paths[0]}.")


def _until_failure(found: Iterable[ImageResult], failures: list[BaseException]) -> Iterator[ImageResult]:
    """End where an image fails, so that the boxes of those before become a whole file; the error goes to `failures`."""
    try:
        yield from found
    except (Exception, KeyboardInterrupt) as error:
        failures.append(error)


def _named(images: Sequence[str]) -> Iterator[str]:
    for each in images:
        if each == "-":
            # In bytes: names of files need be no text.
            yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer if line.strip())
        else:
            yield each
