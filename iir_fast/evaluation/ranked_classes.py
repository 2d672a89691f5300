"""What a classifier, whoever's, says of the images of a split: their classes, best first."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iir_fast.evaluation.arrays import read_array, read_header
from iir_fast.evaluation.stored_maps import listed


def read_ranked_classes(file: Path, ids: Sequence[str], classes: Sequence[str]) -> list[NDArray[np.int64]]:
    """Read the ranked classes of every image of a split.

    Args:
        file: .npy or .npz, integers [N, k] in the order of the images; or a CSV in UTF-8 without header, a line
            ``image_id,class,class,...`` for each image, best class first, in any order.
        ids: names of the images, in their order.
        classes: names of the classes. A class is given by its number, from 0, or by its name; by its name alone where
            names are numbers.

    Returns:
        int64 [k] for each image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such array or CSV, an image is missing, unknown or there twice, or a class is unknown
            or there twice; the message names 20 faults.
    """
    if file.suffix not in (".npy", ".npz"):
        return _read_lines(file, ids, classes)
    header = read_header(file)
    if header.dtype.kind not in "iu" or len(header.shape) != 2 or header.shape[0] != len(ids) or not header.shape[1]:
        raise ValueError(f"{file} is {header}; integers [{len(ids)}, k] are accepted, a row for each image in order.")
    ranked = read_array(file)
    outside = ((ranked < 0) | (ranked >= len(classes))).any(axis=1)
    twice = (np.diff(np.sort(ranked, axis=1), axis=1) == 0).any(axis=1)
    wrong = np.flatnonzero(outside | twice).tolist()
    last = len(classes) - 1
    _stop(file, [f"row {i} is not of different classes from 0 to {last}" for i in wrong])
    return list(ranked.astype(np.int64))


def _read_lines(file: Path, ids: Sequence[str], classes: Sequence[str]) -> list[NDArray[np.int64]]:
    if not file.is_file():
        raise FileNotFoundError(f"predictions names {file}, which does not exist or is not a file")
    numbers = {name: i for i, name in enumerate(classes)}
    if not any(name.isdecimal() for name in classes):
        numbers |= {str(i): i for i in range(len(classes))}
    known, found, faults = set(ids), dict[str, NDArray[np.int64]](), []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, skipinitialspace=True)
            for image_id, *row in filter(None, reader):
                ranked = [numbers.get(each, -1) for each in row]
                where = f"line {reader.line_num}:"
                if image_id not in known:
                    faults.append(f"{where} {image_id!r} is no image of the split")
                elif image_id in found:
                    faults.append(f"{where} {image_id!r} is there twice")
                elif -1 in ranked or not 0 < len(ranked) == len(set(ranked)):
                    faults.append(f"{where} {','.join(row)!r} is not of different classes of the data set")
                found[image_id] = np.array(ranked, np.int64)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a CSV in UTF-8: {error}") from error
    _stop(file, [*faults, *(f"{image_id!r} is missing" for image_id in ids if image_id not in found)])
    return [found[image_id] for image_id in ids]


def _stop(file: Path, faults: Sequence[str]) -> None:
    if faults:
        raise ValueError(f"{file}: {listed({'wrong': faults})}.")
