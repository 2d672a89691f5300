"""Boxes as files: the table of formats, and the two that are tables themselves, JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from iir_fast.app.files import open_text, whole_file
from iir_fast.app.tables import inert
from iir_fast.localization.coco import write_coco
from iir_fast.localization.label_folders import write_voc, write_yolo, write_yolo_labels
from iir_fast.localization.label_studio import label_studio_task
from iir_fast.localization.results import ImageResult
from iir_fast.names import BOX_FORMATS, BoxFormat

CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("path", "width", "height", "label", "class_index", "probability", *CORNERS)
SUFFIXES: dict[str, BoxFormat] = {".json": "json", ".csv": "csv"}
"""What a file's suffix says; other formats in .json are asked for by name."""
YOLO: tuple[BoxFormat, ...] = ("yolo", "yolo-seg")
"""Formats whose parts share a data.yaml, `write_data_yaml`."""


def choose_format(output: Path | None, asked: BoxFormat | None = None) -> BoxFormat:
    """Choose the format of an output, and look whether it can be written there.

    Args:
        output: the file, or the folder of a format that makes several; None: standard output.
        asked: the format; None: as the suffix of `output` says, and JSON where it has none.

    Raises:
        ValueError: the suffix says nothing, or the format needs a folder and there is none.
        FileExistsError, FileNotFoundError, IsADirectoryError: there is something at that place, or it is nowhere.
    """
    suffix = output.suffix.lower() if output else ""
    form = asked or SUFFIXES.get(suffix) or ("json" if not suffix else None)
    if form is None:
        raise ValueError(f"output is {output}, whose suffix tells no format; accepted are {', '.join(BOX_FORMATS)}.")
    if form in FOLDERS and output is None:
        raise ValueError(f"format {form} makes several files; name a folder as output.")
    if output and form in FOLDERS and output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"output {output} is there; format {form} takes a new or an empty folder.")
    if output and form not in FOLDERS and output.is_dir():
        raise IsADirectoryError(f"output {output} is a folder; format {form} takes a file.")
    if output and not output.exists() and not output.resolve().parent.is_dir():
        raise FileNotFoundError(f"output is {output}, and there is no folder {output.parent}.")
    return form


def write_boxes(
    found: Iterable[ImageResult], out: TextIO | Path, form: BoxFormat, classes: Sequence[str], model: str = "iir_fast"
) -> None:
    """Write every box that was found, with its image, class and probability.

    Where `found` ends with an error, what was found before is still written, as a valid document.

    Args:
        found: the images with their objects.
        out: a text file; of CSV, one that leaves the ends of lines alone (`newline=""`). Of a format that makes several
            files, a new or empty folder.
        form: "json": a list with one object a line and box, box = x0, y0, x1, y1 in pixels of the image, x1 and y1
            exclusive. "csv": the same with a column for each of the four, and an apostrophe before a text that a
            spreadsheet would run, one that begins with =, +, -, @, a tab or a carriage return. The others leave out
            boxes without area: "coco" and "coco-rle", as `write_coco`, "labelstudio", a `label_studio_task` a line,
            "yolo" and "yolo-seg", as `write_yolo`, and "voc", as `write_voc`.
        classes: names of all classes of the model.
        model: name and version of what found them, where the format has a place for it.

    Raises:
        ValueError: a probability is NaN, which JSON does not have, or an image came without a file and the format needs
            one.
        TypeError: `out` is a file and the format makes several, or the other way round.
    """
    if isinstance(out, Path) != (form in FOLDERS):
        accepted = "the path of a folder" if form in FOLDERS else "an open text file"
        raise TypeError(f"out is a {type(out).__name__}; format {form} takes {accepted}.")
    if isinstance(out, Path):
        FOLDERS[form](found, out, classes, model)
    else:
        FILES[form](found, out, classes, model)


def write_part(
    found: Iterable[ImageResult], folder: Path, part: str, form: BoxFormat, classes: Sequence[str], model: str
) -> None:
    """Write one part of a data set, such as "train", into the folder of the whole, as `write_boxes` does.

    It becomes a sub-folder of that name, of YOLO without the data.yaml, which is for all parts, or, of a format of one
    file, `train.csv` or `train.json`.
    """
    if form in YOLO:
        write_yolo_labels(found, folder / part, outlines=form == "yolo-seg")
    elif form in FOLDERS:
        write_boxes(found, folder / part, form, classes, model)
    else:
        file = folder / f"{part}.{'csv' if form == 'csv' else 'json'}"
        with whole_file(file) as aside, open_text(aside) as out:
            write_boxes(found, out, form, classes, model)


def _write_list(entries: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """Write JSON, an entry a line, as they come; where they end with an error, what came before is a whole document."""
    before = "["
    try:
        for entry in entries:
            out.write(f"{before}\n  {json.dumps(entry, allow_nan=False)}")
            before = ","
    finally:
        out.write("[]\n" if before == "[" else "\n]\n")


def _write_json(found: Iterable[ImageResult], out: TextIO, classes: Sequence[str], model: str) -> None:
    _write_list(_rows(found), out)


def _write_label_studio(found: Iterable[ImageResult], out: TextIO, classes: Sequence[str], model: str) -> None:
    _write_list((label_studio_task(image, model) for image in found), out)


def _write_csv(found: Iterable[ImageResult], out: TextIO, classes: Sequence[str], model: str) -> None:
    table = csv.DictWriter(_Lines(out), COLUMNS)
    table.writeheader()
    for row in _rows(found):
        corners = dict(zip(CORNERS, row.pop("box"), strict=True))
        table.writerow({name: inert(value) for name, value in (row | corners).items()})


class _Lines:
    r"""Lines of a CSV that end with \n, written by a `csv` that ends them with \r\n: it quotes what that holds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix("\r\n") + "\n")


def _rows(found: Iterable[ImageResult]) -> Iterator[dict[str, Any]]:
    for image in found:
        width, height = image.size
        for each in image.objects:
            yield {
                "path": image.path,
                "width": width,
                "height": height,
                "label": each.label,
                "class_index": each.class_index,
                "probability": each.probability,
                "box": each.box,
            }


FileWriter: TypeAlias = Callable[[Iterable[ImageResult], TextIO, Sequence[str], str], None]
FolderWriter: TypeAlias = Callable[[Iterable[ImageResult], Path, Sequence[str], str], None]
FILES: dict[BoxFormat, FileWriter] = {
    "json": _write_json,
    "csv": _write_csv,
    "coco": write_coco,
    "coco-rle": partial(write_coco, rle=True),
    "labelstudio": _write_label_studio,
}
"""Formats of one file."""
FOLDERS: dict[BoxFormat, FolderWriter] = {
    "yolo": write_yolo,
    "yolo-seg": partial(write_yolo, outlines=True),
    "voc": write_voc,
}
"""Formats of a file for each image."""
