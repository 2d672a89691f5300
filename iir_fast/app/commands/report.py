"""`iir-fast report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from iir_fast.names import MAPS, MapName


@dataclass(frozen=True)
class Report:
    """Write one HTML page of a run's evaluation: figures, curves, every image with maps, mask and boxes."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of the run. Maps that its metrics.json has no evaluation of are evaluated first."""
    split: str = "test"
    """Split to show."""
    maps: tuple[MapName, ...] = MAPS
    """Localization maps; the page opens with the first."""
    out: Path | None = None
    """The page, if not report.html in the run's folder, which is for the run's own data. Of more than 500 images, data
    go to a folder beside it."""
    limit: int | None = None
    """Show only so many images, evenly spaced over the split."""
    data: str | None = None
    """What to show, as `train --data` takes it; what the run was trained on by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        from iir_fast.report import write_report

        page = write_report(
            self.run_folder, self.split, self.maps, out=self.out, limit=self.limit, data=self.data, device=self.device
        )
        print(page)
