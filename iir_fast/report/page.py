"""The report on disk: a page with its data inside, or beside it where they are many."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.files import remove_leftovers, scratch_folder, whole_file
from iir_fast.models import MapName
from iir_fast.report.images import ReportImage

INLINE_LIMIT = 500
"""Up to so many images, everything is in the one file."""
SHARD_SIZE = 32
"""Images of one part of the data, which the browser loads at once; some 500 kB."""
IOU_STEPS = 200
"""IoUs are kept as floor(200 IoU), which keeps IoU >= 0.5 exactly."""
PAGE_MARK, PART_MARK = b"<title>iir_fast report</title>", b'iirPart("'
"""What a page and a part of the data have near their beginning."""
NO_BOX = 255
"""What is kept in place of an IoU of an image without a box, where others have one."""
SCRIPTS = (
    *("parts", "state", "protocol", "record", "pictures", "metrics", "chart", "classes", "gallery", "detail", "table"),
    *("page", "link"),
)
"""In this order they make one JavaScript module."""


def write_page(
    file: Path, overview: dict[str, Any], maps: tuple[MapName, ...], images: Iterable[ReportImage], count: int
) -> None:
    """Write the report, shard by shard; what is kept of an image until the end is its line of the index.

    Of more than 500 images, the shards go to the folder `<stem>_files` beside the page. A report that is there is
    replaced once the new one is whole.

    Args:
        overview: what the page shows besides images, ready for JSON; the page's scripts say which keys they read.
        images: in the order of the gallery; `count` says how many they are.

    Raises:
        FileExistsError: as `check_page`.
        OSError: the report could not be written; one that was there before still is.
    """
    check_page(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(file.parent)
    folder = None if count <= INLINE_LIMIT else _folder(file)
    with scratch_folder(folder) if folder else nullcontext() as parts, whole_file(file) as aside:
        inline: dict[str, Any] = {}

        def put(name: str, part: Any) -> None:
            if parts:
                (parts / f"{name}.js").write_text(_call(name, part), encoding="ascii")
            else:
                inline[name] = part

        index = _put_images(images, maps, count, put)
        layout = {"maps": maps, "shard": SHARD_SIZE, "folder": folder and folder.name}
        layout |= {"iouSteps": IOU_STEPS, "noBox": NO_BOX}
        inline["overview"] = {**overview, **layout, "index": index}
        aside.write_text(_assemble(inline), encoding="utf-8")
        if parts and folder:
            # For a moment there is no page, rather than an old one with new data.
            file.unlink(missing_ok=True)
            folder.mkdir(exist_ok=True)
            for old in _parts(folder):
                old.unlink()
            for part in parts.iterdir():
                part.replace(folder / part.name)


def check_page(file: Path) -> None:
    """Raise FileExistsError where a report would take the place of something else."""
    marked = [(file, PAGE_MARK), *((part, PART_MARK) for part in _parts(_folder(file)))]
    for each, mark in marked:
        # An empty one was left by a full disk.
        if each.exists() and not (each.is_file() and (each.stat().st_size == 0 or mark in _beginning(each))):
            raise FileExistsError(f"{each} exists and is no report; it is left alone, name another page.")


def _folder(file: Path) -> Path:
    return file.with_name(f"{file.stem}_files")


def _parts(folder: Path) -> list[Path]:
    return [*folder.glob("[0-9]*.js"), *folder.glob("iou-*.js")]


def _beginning(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(4096)


def _put_images(
    images: Iterable[ReportImage], maps: tuple[MapName, ...], count: int, put: Callable[[str, Any], None]
) -> dict[str, list[Any]]:
    """Hand the shards and the IoUs of all images to `put`; what comes back is the index."""
    index: dict[str, list[Any]] = {"ids": [], "labels": [], "predicted": [], "probability": [], "rank": [], "sizes": []}
    iou: dict[MapName, list[NDArray[np.uint8] | None]] = {map: [] for map in maps}
    shard: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        index["ids"].append(image.id)
        index["labels"].append(image.label)
        index["predicted"].append(image.predicted)
        index["probability"].append(round(image.probability, 4))
        index["rank"].append(image.rank)
        index["sizes"].append(image.size)
        for row, map in enumerate(maps):
            iou[map].append(None if image.iou is None else (image.iou[row] * IOU_STEPS).astype(np.uint8))
        shard.append(_record(image))
        if len(shard) == SHARD_SIZE or number == count - 1:
            put(f"{number // SHARD_SIZE:04d}", shard)
            shard = []
    for map, rows in iou.items():
        # One threshold after the other: what a move of the slider reads lies together.
        put(f"iou-{map}", _iou_table(rows))
    return index


def _call(name: str, part: Any) -> str:
    """Make a piece of data a call of `iirPart` in JavaScript: the one thing a page may load without a server."""
    # JSON in ASCII, and no "<": whatever a class or a file is called, it neither ends the script nor starts a tag.
    content = json.dumps(part, separators=(",", ":")).replace("<", "\\u003c")
    return f'iirPart("{name}",{content});\n'


def _iou_table(rows: Sequence[NDArray[np.uint8] | None]) -> str | None:
    """Join the IoUs of all images, uint8 [T] each, to [T, images]; None where no image has a box."""
    known = next((row for row in rows if row is not None), None)
    if known is None:
        return None
    none = np.full_like(known, NO_BOX)
    return _base64(np.stack([none if row is None else row for row in rows], axis=1))


def _record(image: ReportImage) -> dict[str, Any]:
    return {
        "size": image.maps.shape[1:],
        "trueBoxes": image.true_boxes.round(1).tolist(),
        "cams": _base64(np.rint(image.cams * 255).astype(np.uint8)),
        "maps": _base64(image.maps.astype("<f4")),
        "thumbnail": base64.b64encode(image.thumbnail).decode(),
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _assemble(inline: dict[str, Any]) -> str:
    web = files("iir_fast.report") / "web"

    def read(name: str) -> str:
        return (web / name).read_text(encoding="utf-8")

    page = read("page.html").replace("<!-- style -->", f"<style>\n{read('page.css')}</style>")
    scripts = "\n".join(read(f"{name}.js") for name in SCRIPTS)
    page = page.replace("<!-- scripts -->", f'<script type="module">\n{scripts}</script>')
    # Last, so that nothing is looked for in the data.
    return page.replace("<!-- parts -->", "\n".join(f"<script>{_call(*part)}</script>" for part in inline.items()))
