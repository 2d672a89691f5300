"""`iir-fast export`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from iir_fast.names import DEFAULT_MAP, MapName


@dataclass(frozen=True)
class Export:
    """Write a localizer as one file that needs nothing of this package, for torch.export or ONNX Runtime.

    Normalized images of any number become logits, classes and 224 x 224 localization maps; class names, normalization
    and threshold stand beside the graph. ONNX needs '.[export]'.
    """

    model: tyro.conf.Positional[Path]
    """Folder of a run, or a checkpoint."""
    file: tyro.conf.Positional[Path]
    """The file to write, .pt2 or .onnx."""
    map: MapName = DEFAULT_MAP
    """Localization map."""

    def run(self) -> None:
        from iir_fast.app.runs import load
        from iir_fast.localization import check_export, export_network

        # Its optimizer reports every operation that it leaves as it is.
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        check_export(self.file)
        export_network(load(self.model, "cpu"), self.file, self.map)
        print(self.file)
