"""CUB-200-2011, ILSVRC and OpenImages30k, as "Evaluating Weakly Supervised Object Localization Methods Right" (Choe et
al., CVPR 2020) lays out their metadata.

Below one root stand the images, in `CUB/`, `ILSVRC/` or `OpenImages/`, and for each split a folder, e.g.
`metadata/CUB/test/`, of text files without header, one record a line, fields separated by commas. All paths are
relative to the folder of the images. Of ILSVRC, `test` is the official validation set and `val` is ImageNetV2.

- `image_ids.txt`: path. Of a training split `image_ids_proxy.txt`, where it is there, lists the part of it that
  hyper-parameters are searched on.
- `class_labels.txt`: path, label. Labels follow the sorted names of the classes' folders in the training split.
- `image_sizes.txt`: path, width, height. May be absent.
- `localization.txt`: path, x0, y0, x1, y1, one line per box, or path, mask, ignore, one line per instance, where only
  an image's first line may name an ignore region. May be absent, and a training split needs none. Boxes count both
  their edges: for CUB, x1 is x + w. Masks have their own resolution.

CUB's masks, an archive of their own, are found in `CUB/segmentations/<class>/<image>.png`, where they are there.

An empty file is an absent one: the protocol's repository has image_sizes.txt empty for Open Images and for ILSVRC's
training split, and localization.txt for the training split of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from iir_fast.data.listing import ListedBox, ListedMasks, Listing, Size
from iir_fast.data.records import (
    Fault,
    OnFault,
    at,
    check_path,
    class_limit,
    holds_text,
    name_classes,
    parse_box,
    parse_whole,
    raise_fault,
    read_records,
)

IDS = "image_ids.txt"


@dataclass(frozen=True)
class MetadataLayout:
    """Where a data set's files are, and what it officially holds.

    Attributes:
        title: its name.
        folder: name of the folder of its images, and of its metadata.
        annotation: what its localization.txt states.
        images: number of images by split (from the protocol's paper and files).
        annotations: number of boxes or masks by split, as far as it is published.
        train_ids: name of the file that lists the training images.
        segmentations: folder of masks below that of the images, if the data set has masks that no metadata file names.
    """

    title: str
    folder: str
    annotation: Literal["boxes", "masks"]
    images: Mapping[str, int]
    annotations: Mapping[str, int]
    train_ids: str = IDS
    segmentations: str | None = None

    def metadata(self, root: Path, split: str) -> Path:
        """Name the folder of a split's metadata files."""
        return root / "metadata" / self.folder / split


_CUB = {"train": 5994, "val": 1000, "test": 5794}
_ILSVRC = {"train": 1_281_167, "val": 10_000, "test": 50_000}
_OPEN_IMAGES = {"train": 29_819, "val": 2_500, "test": 5_000}
METADATA = {
    "cub": MetadataLayout("CUB-200-2011", "CUB", "boxes", _CUB, _CUB, segmentations="segmentations"),
    "ilsvrc": MetadataLayout("ILSVRC", "ILSVRC", "boxes", _ILSVRC, {"test": 80_477}),
    "openimages": MetadataLayout("OpenImages30k", "OpenImages", "masks", _OPEN_IMAGES, {"val": 3_854, "test": 7_632}),
}
METADATA |= {
    f"{name}-proxy": replace(
        layout,
        images={split: count for split, count in layout.images.items() if split != "train"},
        annotations={split: count for split, count in layout.annotations.items() if split != "train"},
        train_ids="image_ids_proxy.txt",
    )
    for name, layout in METADATA.items()
}


def list_metadata(
    layout: MetadataLayout,
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    on_fault: OnFault = raise_fault,
) -> Listing:
    """List what the metadata files of one split say.

    Classes are by default the folders of the training images (of ILSVRC the WordNet ids), or the labels themselves
    where there is no metadata of the training split.
    """
    if classes is None and split != "train" and (layout.metadata(root, "train") / "class_labels.txt").is_file():
        classes = list_metadata(layout, root, "train", on_fault=on_fault).classes
    files = _Files(layout, root, split, on_fault)
    labels = files.labels(classes)
    if classes is None and split == "train":
        classes = files.class_names(labels)
    elif classes is None:
        classes = [str(label) for label in range(max(labels.values(), default=-1) + 1)]
    listing = Listing(
        root=root / layout.folder,
        split=split,
        classes=tuple(classes),
        ids=tuple(path for path in files.ids if path in labels),
        labels=tuple(labels[path] for path in files.ids if path in labels),
        sizes=files.sizes(),
        boxes=files.boxes() if layout.annotation == "boxes" else {},
        masks=files.masks() if layout.annotation == "masks" else files.segmentations(root / layout.folder),
        masks_are="scaled",
    )
    for path in filter(listing.sizes.get, listing.boxes):
        listing.check_boxes(path, listing.sizes[path], on_fault)
    return listing


class _Files:
    """The metadata files of one split; `ids` has the line of each image in the list of its images."""

    def __init__(self, layout: MetadataLayout, root: Path, split: str, on_fault: OnFault) -> None:
        self._folder = layout.metadata(root, split)
        self._is_train = split == "train"
        self._segmentations = layout.segmentations
        self._list = layout.train_ids if self._is_train else IDS
        self._on_fault = on_fault
        self.ids: dict[str, int] = {}
        file = self._folder / self._list
        for number, (path,) in read_records(file, "path", ",", on_fault):
            try:
                check_path(path, at(file, number))
                _add_line(self.ids, path, number, at(file, number))
            except Fault as fault:
                on_fault(fault)
        if not self.ids:
            on_fault(Fault("missing line", f"{file} lists no image"))

    def labels(self, classes: Sequence[str] | None) -> dict[str, int]:
        labels: dict[str, int] = {}
        indices = {name: i for i, name in enumerate(classes or ())}
        limit = class_limit(len(self.ids)) if classes is None else len(classes)

        def take(where: str, path: str, text: str) -> None:
            label = parse_whole(text, "label", where)
            if label >= limit:
                of = f", for {len(self.ids):,} images" if classes is None else ""
                raise Fault("label", f"{where}: label must be below {limit}{of}, got {label}")
            right = indices.get(_folder_name(path), label)
            if right != label:
                raise Fault("label", f"{where}: {path} lies in the folder of label {right}, got {label}")
            labels[path] = label

        self._read("class_labels.txt", "path,label", take, once=True, optional=False)
        return labels

    def class_names(self, labels: Mapping[str, int]) -> tuple[str, ...]:
        """Name the classes of the training split: its folders."""
        file = self._folder / "class_labels.txt"
        names = name_classes(((label, _folder_name(path)) for path, label in labels.items()), file, self._on_fault)
        for label, (name, right) in enumerate(zip(names, sorted(names), strict=True)):
            if name != right:
                text = f"labels must follow the sorted names of the folders; label {label} is {name!r}, not {right!r}"
                self._on_fault(Fault("label", f"{file}: {text}"))
                break
        return names

    def sizes(self) -> dict[str, Size]:
        sizes: dict[str, Size] = {}

        def take(where: str, path: str, width: str, height: str) -> None:
            sizes[path] = parse_whole(width, "width", where, 1), parse_whole(height, "height", where, 1)

        self._read("image_sizes.txt", "path,width,height", take, once=True)
        return sizes

    def boxes(self) -> dict[str, list[ListedBox]]:
        boxes: dict[str, list[ListedBox]] = {}

        def take(where: str, path: str, *edges: str) -> None:
            found = boxes.setdefault(path, [])
            found.append(ListedBox(where, parse_box(edges, where, inclusive=True)))

        self._read("localization.txt", "path,x0,y0,x1,y1", take)
        return boxes

    def masks(self) -> dict[str, ListedMasks]:
        masks: dict[str, ListedMasks] = {}

        def take(where: str, path: str, mask: str, ignore: str) -> None:
            before = masks.setdefault(path, ListedMasks())
            for each in (mask, ignore) if ignore else (mask,):
                check_path(each, where)
            if ignore and before.masks:
                text = f"only an image's first line may name an ignore region, got {ignore!r} for {path}"
                raise Fault("corrupt line", f"{where}: {text}")
            masks[path] = ListedMasks((*before.masks, mask), before.ignore or ignore)

        self._read("localization.txt", "path,mask,ignore", take)
        return masks

    def segmentations(self, images: Path) -> dict[str, ListedMasks]:
        """Find a mask for each image, named as it is, in a folder beside the images' classes."""
        if not self._segmentations or not (images / self._segmentations).is_dir():
            return {}
        named = {path: f"{self._segmentations}/{PurePosixPath(path).with_suffix('.png')}" for path in self.ids}
        return {path: ListedMasks((mask,)) for path, mask in named.items() if (images / mask).is_file()}

    def _read(self, name: str, form: str, take: Callable[..., None], once: bool = False, optional: bool = True) -> None:
        """Hand place and fields of every line to `take`; each image must have a line, and one only with `once`."""
        file = self._folder / name
        if optional and not holds_text(file):
            return
        lines: dict[str, int] = {}
        for number, (path, *fields) in read_records(file, form, ",", self._on_fault):
            where = at(file, number)
            try:
                if path not in self.ids and self._list != IDS:
                    continue  # of the training images that the proxy leaves out
                if path not in self.ids:
                    raise Fault("unlisted id", f"{where}: {path} is not in {self._list}")
                if once:
                    _add_line(lines, path, number, where)
                lines[path] = number
                take(where, path, *fields)
            except Fault as fault:
                self._on_fault(fault)
        if len(lines) < len(self.ids) and (once or not self._is_train):
            for path in self.ids:
                if path not in lines:
                    text = f"{file} has no line for {path}, which {self._list} lists"
                    self._on_fault(Fault("missing line" if once else "no annotation", text))


def _add_line(lines: dict[str, int], path: str, number: int, where: str) -> None:
    if path in lines:
        raise Fault("duplicate id", f"{where}: {path} stands in line {lines[path]} already")
    lines[path] = number


def _folder_name(path: str) -> str:
    """Name the folder an image lies in."""
    return path.rpartition("/")[0].rpartition("/")[2]
