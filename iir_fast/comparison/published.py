"""Published figures of other methods, which a table shows below its own; nothing of them is measured here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iir_fast.app.files import one_line

METRICS = (("MaxBoxAccV2", "max_box_acc_v2"), ("MaxBoxAcc", "max_box_acc"), ("PxAP", "pxap"), ("Top-1 Loc", "top1_loc"))
"""Columns of a table of results, and the names of the metrics in `Metrics`."""
COLUMNS = (("no box", "no_box_gt_known_loc"), *METRICS, ("accuracy", "top1_accuracy"))
_FIGURES = tuple(key for _, key in COLUMNS)


@dataclass(frozen=True)
class Published:
    """What somebody else says of a method.

    Attributes:
        name: of the method.
        source: where its figures stand.
        variant: the data variant they are of; empty where the comparison has none.
        figures: in percent, by the names of the metrics in `Metrics`.
    """

    name: str
    source: str
    variant: str
    figures: dict[str, float]


def read_published(rows: Any, where: str, variants: tuple[str, ...]) -> tuple[Published, ...]:
    """Check the rows that a comparison's file lists under `published`; ValueError says which is wrong, and how."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{where} is {rows!r}; accepted is a list of mappings with name, source and figures.")
    return tuple(_read_row(row, f"{where}, row {number}", variants) for number, row in enumerate(rows, 1))


def _read_row(row: dict[str, Any], where: str, variants: tuple[str, ...]) -> Published:
    if unknown := sorted(map(str, row.keys() - {"name", "source", "data", *_FIGURES})):
        raise ValueError(f"{where} names {one_line(unknown)}; known are name, source, data, {', '.join(_FIGURES)}.")
    for key in ("name", "source"):
        if not isinstance(text := row.get(key), str) or not text.strip():
            raise ValueError(f"{where}: {key} is {text!r}; accepted is a text, as every figure needs its source.")
    if (variant := row.get("data", "")) not in variants:
        accepted = ", ".join(filter(None, variants)) or "none, as the file has no data variants"
        raise ValueError(f"{where}: data is {variant!r}; accepted is {accepted}.")
    figures = {key: row[key] for key in _FIGURES if key in row}
    if not figures or any(type(value) not in (int, float) or not 0 <= value <= 100 for value in figures.values()):
        raise ValueError(f"{where}: its figures are {figures}; accepted is one or more, each from 0 to 100 %.")
    return Published(" ".join(row["name"].split()), " ".join(row["source"].split()), variant, figures)
