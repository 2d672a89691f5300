"""Where the stages run, and how large what they run is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benchmarks.workloads import MAPS, TINY_SHAPES, Shape

CLASSES, BATCH = 1000, {"cuda": 64, "cpu": 8}


@dataclass(frozen=True)
class Setting:
    """A device, and whether all is tiny.

    Attributes:
        device: "cpu" or "cuda", which ROCm is called too.
        tiny: tiny shapes, few rounds, nothing compiled to the end: to see that everything runs. No time means anything.
    """

    device: str
    tiny: bool

    def shape(self, network: str, dtype: torch.dtype, channels_last: bool = False) -> Shape:
        """A network's map by its name in `MAPS`, or a tiny one of the same dtype and layout."""
        if self.tiny:
            return replace(TINY_SHAPES[0], dtype=dtype, channels_last=channels_last)
        return Shape(*MAPS[network], BATCH[self.device], CLASSES, dtype, channels_last)

    @property
    def compiler(self) -> str:
        """Backend of torch.compile; capturing alone, without compiling, spares tiny runs minutes."""
        return "eager" if self.tiny else "inductor"

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()
