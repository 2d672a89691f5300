"""`iir-fast data check` and `iir-fast data pack`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from iir_fast.app.progress import log


@dataclass(frozen=True)
class Check:
    """Check a data set: what is there, what is missing, what is inconsistent; exit status 1 with faults."""

    source: tyro.conf.Positional[str]
    """What `train --data` takes: procedural, a folder of one's own images, by class or with CSVs, or one of
    - cub:ROOT, ilsvrc:ROOT, openimages:ROOT: the images, CUB/ and so on, and metadata/CUB/test/image_ids.txt and so on
    - ilsvrc-proxy:ROOT and so on: the same, but trained on metadata/ILSVRC/train/image_ids_proxy.txt
    - pet:ROOT: oxford-iiit-pet/
    - images:ROOT: train/<class>/ and test/<class>/, or <class>/, images at any depth
    - shards:ROOT: train/*.tar, test/*.tar and perhaps classes.txt
    """
    decode: bool = False
    """Decode every image and mask, which finds truncated ones; by default their headers are read."""
    raw_orientation: bool = False
    """Boxes are in the pixels of the images as they are stored; by default one's own images are turned upright."""
    json: bool = False
    """Print JSON, with every fault, in place of the page."""

    def run(self) -> None:
        from iir_fast.data import check_data

        report = check_data(self.source, self.decode, self.raw_orientation)
        if self.json:
            print(json.dumps(report.to_dict()))
        else:
            Console().print(report.table())
            print(*report.lines(), sep="\n")
        if report.faults:
            sys.exit(1)


@dataclass(frozen=True)
class Pack:
    """Pack the images, labels and boxes of one split into tar shards of about 1 GB, WebDataset's layout."""

    source: tyro.conf.Positional[str]
    """What to pack, as `check` takes it."""
    out: tyro.conf.Positional[Path]
    """Folder for classes.txt and the shards, <split>/000000.tar and so on; `train --data shards:OUT` reads them."""
    split: str = "train"
    """Which part of the source; it must not be in the folder yet."""
    raw_orientation: bool = False
    """Boxes are in the pixels of the images as they are stored; by default one's own images are read upright."""

    def run(self) -> None:
        from iir_fast.data import pack_split

        packed = pack_split(self.source, self.out, self.split, raw_orientation=self.raw_orientation)
        print(f"{packed.folder}: {packed.images:,} images, {packed.boxes:,} boxes; shards: {packed.shards:,}")
        if packed.masks_left_out:
            log(f"masks are left out, shards hold none; {self.source} still has them.")


@dataclass(frozen=True)
class Data:
    """Check a data set, or pack it into shards."""

    action: tyro.conf.OmitArgPrefixes[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Pack, tyro.conf.subcommand("pack")]
        ]
    ]

    def run(self) -> None:
        self.action.run()
