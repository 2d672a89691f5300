"""Training methods: their options, and what loss they make of a batch. One small file each, one loop for all."""

from __future__ import annotations

from typing import TypeAlias

from iir_fast.methods.acol import ACoL
from iir_fast.methods.adl import ADL
from iir_fast.methods.cam import CAM
from iir_fast.methods.cutmix import CutMix
from iir_fast.methods.has import HaS
from iir_fast.methods.iir import IIR
from iir_fast.methods.method import BatchLoss, Learner, Method, MethodLoss
from iir_fast.methods.spg import SPG

MethodName: TypeAlias = str
"""A key of METHODS: what `iir-fast train --method` takes."""
METHODS: dict[MethodName, type[Method]] = {
    method.__name__.lower(): method for method in (IIR, CAM, HaS, ACoL, SPG, ADL, CutMix)
}
"""Every method by its name."""

__all__ = [
    "ADL",
    "CAM",
    "IIR",
    "METHODS",
    "SPG",
    "ACoL",
    "BatchLoss",
    "CutMix",
    "HaS",
    "Learner",
    "Method",
    "MethodLoss",
    "MethodName",
]
