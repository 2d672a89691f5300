"""What a check of a data set found, and how it fits on one page."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from iir_fast.data.faults import Fault

SHOWN = 20
"""Faults of one kind that the page shows; all of them are counted."""


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds.

    Attributes:
        split: its name.
        images: images listed.
        classes: classes that occur.
        fewest: images of the class that has fewest, of all classes of the data set.
        most: images of the class that has most.
        boxes: boxes listed.
        masks: masks listed.
    """

    split: str
    images: int
    classes: int
    fewest: int
    most: int
    boxes: int
    masks: int


@dataclass(frozen=True)
class DataReport:
    """Result of a check.

    Attributes:
        source: what was checked.
        splits: what is there.
        faults: what breaks loading or spoils figures.
        warnings: what is unusual, in sentences.
    """

    source: str
    splits: tuple[SplitSummary, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "source": self.source,
            "splits": [asdict(split) for split in self.splits],
            "faults": [{"kind": fault.kind, "message": fault.message} for fault in self.faults],
            "warnings": list(self.warnings),
        }

    def table(self) -> Table:
        """One row per split."""
        table = Table(title=self.source, title_justify="left")
        for column in ("split", "images", "classes", "images per class", "boxes", "masks"):
            table.add_column(column, justify="left" if column == "split" else "right")
        for each in self.splits:
            per_class = f"{each.fewest:,} to {each.most:,}"
            counts = f"{each.images:,}", f"{each.classes:,}", per_class, f"{each.boxes:,}", f"{each.masks:,}"
            table.add_row(each.split, *counts)
        return table

    def lines(self) -> list[str]:
        """Faults by kind, then warnings, then how many faults there are."""
        lines = []
        for kind, count in Counter(fault.kind for fault in self.faults).items():
            lines.append(f"{kind} ({count:,})")
            messages = [fault.message for fault in self.faults if fault.kind == kind]
            lines += [f"  {message}" for message in messages[:SHOWN]]
            if count > SHOWN:
                lines.append(f"  and {count - SHOWN:,} more")
        lines += [f"note: {warning}" for warning in self.warnings]
        lines.append(f"{len(self.faults):,} faults" if self.faults else "no faults")
        return lines
