"""Names that options take: here, so that a command line is read without what they name, and without torch."""

from __future__ import annotations

from typing import Literal, get_args

MapName = Literal["both", "evidence", "cam"]
"""A localization map, as `IIRNetwork.localize` makes it."""
MAPS: tuple[MapName, ...] = get_args(MapName)
"""All of them."""
DEFAULT_MAP: MapName = "both"
"""What boxes are cut from unless another map is named."""

Refinement = Literal["none", "guided", "grabcut"]
"""How a score map is refined by its image."""
REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)
DEFAULT_REFINEMENT: Refinement = "grabcut"
"""What boxes are cut from unless another is named. Evaluations refine nothing unless asked, as the protocol has it."""

BoxFormat = Literal["json", "csv", "coco", "coco-rle", "labelstudio", "yolo", "yolo-seg", "voc"]
BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)

PictureFormat = Literal["png", "jpg", "webp"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)
