"""Training methods: what a loss makes of a batch. One small file each, all driven by the same training loop."""

from __future__ import annotations

from typing import Literal

from iir_fast.methods.acol import ACoL
from iir_fast.methods.adl import ADL
from iir_fast.methods.cam import CAM
from iir_fast.methods.cutmix import CutMix
from iir_fast.methods.has import HaS
from iir_fast.methods.iir import IIR
from iir_fast.methods.method import Method, MethodLoss
from iir_fast.methods.spg import SPG

MethodName = Literal["iir", "cam", "has", "acol", "spg", "adl", "cutmix"]
"""What `iir-fast train --method` takes."""
METHODS: dict[MethodName, type[Method]] = {
    "iir": IIR,
    "cam": CAM,
    "has": HaS,
    "acol": ACoL,
    "spg": SPG,
    "adl": ADL,
    "cutmix": CutMix,
}
"""Every method by its name."""

__all__ = ["ADL", "CAM", "IIR", "METHODS", "SPG", "ACoL", "CutMix", "HaS", "Method", "MethodLoss", "MethodName"]
