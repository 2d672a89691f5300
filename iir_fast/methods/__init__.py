"""Training methods: what a loss makes of a batch. One small file each, all driven by the same training loop."""

from __future__ import annotations

from typing import Literal

from iir_fast.loss import IIRLoss
from iir_fast.methods.cam import CAM
from iir_fast.methods.iir import IIR
from iir_fast.methods.method import Method, MethodLoss

MethodName = Literal["iir", "cam"]

__all__ = ["CAM", "IIR", "Method", "MethodLoss", "MethodName", "create_method"]


def create_method(name: MethodName, loss: IIRLoss) -> Method:
    """The method of that name; `loss` carries the options of the one that uses it."""
    return IIR(loss) if name == "iir" else CAM()
