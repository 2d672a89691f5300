"""`iir-fast localize`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import tyro

from iir_fast.data import BrokenImageError
from iir_fast.localization import DEFAULT_THRESHOLD, PREDICTED_COLOUR, localize_images, overlay
from iir_fast.models import MapKind, load_localizer
from iir_fast.progress import console
from iir_fast.training import (
    RunFolder,
    pick_device,
)


@dataclass(frozen=True)
class Localize:
    """Find the object in images: a box, its class and the class's probability as JSON, overlays as PNG."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files."""
    model: Path
    """Folder of a run, or a checkpoint."""
    map: MapKind = "evidence"
    """Localization map."""
    threshold: float | None = None
    """Share of the map's maximum at which the object is cut out; by default the one of the run's last evaluation."""
    overlays: Path | None = None
    """Folder for overlays, one PNG per image, numbered in order."""
    skip_broken: bool = False
    """Leave out images that cannot be read, and say how many, instead of stopping."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run the network."""

    def run(self) -> None:
        if not self.images:
            raise ValueError("images is empty; name at least one image file.")
        model, spec = load_localizer(self.model, pick_device(self.device))
        threshold = self._threshold()
        results, skipped = [], 0
        for number, path in enumerate(self.images):
            try:
                (found,) = localize_images(model, spec, [path], self.map, threshold)
            except BrokenImageError as error:
                if not self.skip_broken:
                    raise
                skipped += 1
                console.print(f"skipped: {error}", highlight=False)
                continue
            results.append(found.to_dict())
            if self.overlays:
                self.overlays.mkdir(parents=True, exist_ok=True)
                picture = overlay(found.image, found.scoremap, [(found.found.box, PREDICTED_COLOUR)])
                picture.save(self.overlays / f"{number:05d}-{path.stem}.png")
        print(json.dumps(results, indent=2))
        if skipped:
            console.print(f"skipped {skipped} of {len(self.images)} images that cannot be read.")

    def _threshold(self) -> float:
        if self.threshold is not None:
            return self.threshold
        evaluated = RunFolder(self.model).read_metrics().get("test", {}).get(self.map)
        if evaluated and evaluated["fixed_threshold"]:
            fixed = evaluated["fixed_threshold"]
            console.print(f"threshold {fixed['value']:.2f}, chosen on: {fixed['chosen_on']}.", highlight=False)
            return cast(float, fixed["value"])
        console.print(f"threshold {DEFAULT_THRESHOLD}, the default: no evaluation of this model.", highlight=False)
        return DEFAULT_THRESHOLD
