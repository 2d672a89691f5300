"""CUB-200-2011, ILSVRC and OpenImages30k from the field's metadata files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iir_fast.data.dataset import Transform
from iir_fast.data.faults import Fault
from iir_fast.data.listing import ListedDataset
from iir_fast.data.metadata_files import METADATA, list_metadata


class MetadataDataset(ListedDataset):
    """One split of a data set in the layout of the WSOL protocol (Choe et al., CVPR 2020).

    `root` holds the images, ``CUB/``, ``ILSVRC/`` or ``OpenImages/``, and the text files
    ``metadata/<the same name>/<split>/{image_ids,class_labels,image_sizes,localization}.txt``.

    Boxes are as the files state them, and count both their edges: for CUB, x1 is the file's x + w. Of ILSVRC, ``test``
    is the official validation set and ``val`` is ImageNetV2. Masks of OpenImages keep their own resolution. An image
    without a line in localization.txt has no box or mask; lines of images that image_ids.txt does not list are passed
    over. Construction reads the text files only: no image is looked for before it is asked for.

    Args:
        name: "cub", "ilsvrc" or "openimages".
        root: see above.
        split: "train", "val" or "test".
        transform: makes the tensor of an RGB image.
        classes: class names in the order of the labels; by default the folders of the training images (of ILSVRC the
            WordNet ids), or the labels themselves where there is no metadata of the training split.
        skip_broken: decode every image and its masks once and leave out images where that fails.

    Raises:
        FileNotFoundError: image_ids.txt or class_labels.txt is missing.
        ValueError: `name` is unknown, a line is malformed, an image is listed twice or has no label or size, a label is
            out of range or belies the image's folder, or a box leaves its image; the message has file and line. Or no
            image is left.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        split: str,
        *,
        transform: Transform,
        classes: Sequence[str] | None = None,
        skip_broken: bool = False,
    ) -> None:
        if name not in METADATA:
            raise ValueError(f"name must be one of {', '.join(METADATA)}, got {name!r}")
        super().__init__(list_metadata(METADATA[name], Path(root), split, classes, _stop), transform, skip_broken)


def _stop(fault: Fault) -> None:
    # What the protocol's own tools pass over in silence: a shortened image_ids.txt, an image to train on only.
    if fault.kind not in ("unlisted id", "no annotation"):
        raise fault
