"""Boxes as folders of labels, one file for each image, with links to the images: YOLO and Pascal VOC."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import yaml

from iir_fast.app.files import write_whole
from iir_fast.localization.results import FoundObject, ImageResult

NOT_XML = "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
"""What has no place in XML, https://www.w3.org/TR/xml/#charsets; what has none in UTF-8 is part of it."""


def write_yolo(
    found: Iterable[ImageResult], folder: Path, classes: Sequence[str], model: str, *, outlines: bool = False
) -> None:
    """Write a data set as Ultralytics' programs read it: data.yaml, images/ and labels/.

    Labels have a line for each object, `class x y width height`, the box's centre and size in shares of the image or,
    with `outlines`, `class x y x y ...`, a polygon, as for segmentation; the format has no place for a probability. The
    images are links; data.yaml names them for training and validation alike, as the split is the user's.
    """
    write_data_yaml(folder, {"train": "images", "val": "images"}, classes, model)
    write_yolo_labels(found, folder, outlines=outlines)


def write_data_yaml(folder: Path, parts: Mapping[str, str], classes: Sequence[str], model: str) -> None:
    """Write the data.yaml of YOLO into a folder, which is made: the classes, what found the boxes as a remark, and the
    folder of each part's images, relative to it, of train and val at least."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**parts, "names": dict(enumerate(classes))}
    remark = " ".join(model.split())
    write_whole(folder / "data.yaml", f"# Boxes found by {_plain(remark)}\n{yaml.safe_dump(content, sort_keys=False)}")


def write_yolo_labels(found: Iterable[ImageResult], folder: Path, *, outlines: bool = False) -> None:
    """Write images/ and labels/, as `write_yolo` does, without data.yaml."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for image in found:
        name = _link(image, folder / "images")
        lines = [_yolo_line(each, image.size, outlines) for each in image.objects if not each.is_empty]
        write_whole(folder / "labels" / f"{name}.txt", "".join(lines))


def write_voc(found: Iterable[ImageResult], folder: Path, classes: Sequence[str], model: str) -> None:
    """Write a data set as Pascal VOC has it: Annotations/ and, as links, JPEGImages/.

    The corners of a box are its first and last pixel, counted from 1; the format has no place for a probability, and
    lists no classes. The annotations' database is `model`.
    """
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for image in found:
        name = _link(image, folder / "JPEGImages")
        root = ElementTree.Element("annotation")
        width, height = image.size
        _put(root, folder="JPEGImages", filename=f"{name}{image.file.suffix}", path=os.path.abspath(image.file))
        _put(ElementTree.SubElement(root, "source"), database=model)
        _put(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
        _put(root, segmented=0)
        for each in image.objects:
            if not each.is_empty:
                x0, y0, x1, y1 = each.box
                entry = ElementTree.SubElement(root, "object")
                _put(entry, name=each.label, pose="Unspecified", truncated=0, difficult=0)
                _put(ElementTree.SubElement(entry, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
        ElementTree.indent(root)
        write_whole(folder / "Annotations" / f"{name}.xml", ElementTree.tostring(root, encoding="unicode") + "\n")


def _link(image: ImageResult, folder: Path) -> str:
    """Link to an image under a name that no other image has, and return it without its suffix."""
    file = image.file
    name = f"{image.index:05d}-{file.stem}"
    (folder / f"{name}{file.suffix}").symlink_to(os.path.abspath(file))
    return name


def _yolo_line(each: FoundObject, size: tuple[int, int], outlines: bool) -> str:
    (width, height), (x0, y0, x1, y1) = size, each.box
    shares = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    if outlines:
        shares = (each.polygon / size).ravel().tolist()
    return f"{each.class_index} {' '.join(f'{share:.6f}' for share in shares)}\n"


def _put(parent: ElementTree.Element, **fields: object) -> None:
    for name, value in fields.items():
        ElementTree.SubElement(parent, name).text = _plain(str(value))


def _plain(text: str) -> str:
    """Escape what XML and UTF-8 have no characters for, such as the bytes of a file name of another encoding."""
    return re.sub(NOT_XML, lambda each: f"\\x{ord(each[0]) & 255:02x}", text)
