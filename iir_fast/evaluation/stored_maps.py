"""Score maps on disk, whoever made them: all looked at first, then read one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iir_fast.app.progress import in_threads, log
from iir_fast.evaluation.arrays import Header, read_array, read_header
from iir_fast.evaluation.scoremaps import PROTOCOL_SIZE, check_scoremap, resize_scoremap, scoremap_file

SHOWN = 20
"""Files of one kind that a message names; all of them are counted."""


class StoredMaps:
    """The score maps of a split on disk; `maps[i]` is the map of image `i`, float64 [224, 224] in [0, 1].

    A folder has ``<image_id>.npy``, or ``.npz`` of one array, for every image. One such file with an array [N, H, W]
    holds all maps in the order of the images. Numbers are float16, float32, float64 or integers of any byte order.

    Construction looks at all files and reads none. Files of a folder that belong to no image of the split are named in
    a remark where everything else is in order.

    Args:
        path: the folder or the file.
        ids: names of the images, in their order.
        resize: take maps of any size, and do with each what `resize_scoremap` does: bicubic, then stretched to [0, 1].
        normalize: stretch each map, of 224 x 224 already, to [0, 1].
        scale: the number that stands for 1, by which maps are divided, e.g. 255; integers need one unless they are
            stretched.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: maps are missing, or files are no arrays of that kind or of another shape, of which the message
            names 20 each; or `scale` is not positive.
    """

    def __init__(
        self,
        path: str | Path,
        ids: Sequence[str],
        *,
        resize: bool = False,
        normalize: bool = False,
        scale: float | None = None,
    ) -> None:
        if scale is not None and not 0 < scale < math.inf:
            raise ValueError(f"scale is {scale}; a positive number is accepted.")
        self._path, self._resize, self._stretch, self._scale = Path(path), resize, resize or normalize, scale
        self._stack: NDArray[Any] | None = None
        if self._path.is_dir():
            self._files = self._look_at_all(ids)
        else:
            self._stack = self._open_stack(len(ids))

    def __getitem__(self, i: int) -> NDArray[np.float64]:
        """Read the map of image `i`.

        Raises:
            ValueError: it holds NaN or an infinity, or leaves [0, 1] and is not stretched; or the file is damaged.
        """
        if self._stack is None:
            name, stored = f"the score map {self._files[i]}", read_array(self._files[i])
        else:
            name, stored = f"score map {i} of {self._path}", self._stack[i]
        scores = stored.astype(np.float64) / (self._scale or 1)
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} holds NaN or an infinity; finite numbers are accepted.")
        if self._stretch:
            scores = resize_scoremap(torch.from_numpy(scores))
        check_scoremap(scores, name)
        return scores

    def _open_stack(self, count: int) -> NDArray[Any]:
        header = read_header(self._path)
        if len(header.shape) != 3 or header.shape[0] != count:
            raise ValueError(f"{self._path} is {header}; [{count}, H, W] is accepted, a map for each image in order.")
        if objection := self._objection(header._replace(shape=header.shape[1:])):
            raise ValueError(f"each map in {self._path} {objection}.")
        # All of them may not fit into memory.
        return read_array(self._path) if self._path.suffix == ".npz" else np.load(self._path, mmap_mode="r")

    def _look_at_all(self, ids: Sequence[str]) -> list[Path]:
        found = in_threads(self._look, ids, "Looking at score maps")
        expected = {str(file) for file, _, _ in found}
        faults = {kind: [text for _, what, text in found if what == kind] for kind in ("missing", "broken")}
        present = (str(Path(at, name)) for at, _, names in os.walk(self._path) for name in names)
        extra = sorted(file for file in present if file.endswith((".npy", ".npz")) and file not in expected)
        if any(faults.values()):
            raise ValueError(f"score maps of {len(ids):,} images: {listed({**faults, 'of no image': extra})}.")
        if extra:
            log(f"passed over, score maps {listed({'of no image': extra})}.")
        return [file for file, _, _ in found]

    def _look(self, image_id: str) -> tuple[Path, str, str]:
        """Find the file of an image, and what is wrong with it: "missing", "broken" or nothing, and a text."""
        file = scoremap_file(self._path, image_id)
        if not file.exists() and (zipped := file.with_suffix(".npz")).exists():
            file = zipped
        try:
            objection = self._objection(read_header(file))
        except FileNotFoundError:
            return file, "missing", str(file)
        except (ValueError, OSError) as error:
            return file, "broken", str(error)
        return file, "broken" if objection else "", f"{file} {objection}"

    def _objection(self, header: Header) -> str:
        side = PROTOCOL_SIZE
        if len(header.shape) != 2 or 0 in header.shape or not (self._resize or header.shape == (side, side)):
            accepted = "[H, W] is accepted" if self._resize else f"[{side}, {side}] is accepted, any [H, W] with resize"
            return f"is {header}; {accepted}"
        if header.dtype.kind != "f" and self._scale is None and not self._stretch:
            return f"is {header}; integers are accepted with scale, the number that stands for 1, or with normalize"
        return ""


def listed(found: Mapping[str, Sequence[str]]) -> str:
    """Count texts by kind, and give the first of each."""
    kinds = []
    for kind, texts in found.items():
        more = f", and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else ""
        if texts:
            kinds.append(f"{len(texts):,} {kind}: {', '.join(texts[:SHOWN])}{more}")
    return "; ".join(kinds)
