"""`iir-fast data`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Literal

import tyro
from rich.console import Console

from iir_fast.data import check_data


@dataclass(frozen=True)
class Data:
    """Check a data set: what is there, what is missing, what is inconsistent; exit status 1 with faults."""

    action: tyro.conf.Positional[Literal["check"]]
    """What to do."""
    source: tyro.conf.Positional[str]
    """A folder with CSVs, cub:ROOT, ilsvrc:ROOT, openimages:ROOT, pet:ROOT or procedural, as `train --data` takes it.
    ROOT holds the images, CUB/, ILSVRC/ or OpenImages/, and metadata/CUB/test/image_ids.txt and the like."""
    decode: bool = False
    """Decode every image and mask, which finds truncated ones; by default their headers are read."""
    json: bool = False
    """Print JSON, with every fault, in place of the page."""

    def run(self) -> None:
        report = check_data(self.source, self.decode)
        if self.json:
            print(json.dumps(report.to_dict()))
        else:
            Console().print(report.table())
            print(*report.lines(), sep="\n")
        if report.faults:
            sys.exit(1)
