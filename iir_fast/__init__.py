"""Weakly supervised object localization with inter-intra regulated CAMs (a reconstruction).

>>> from iir_fast import DualCAMHead, IIRLoss
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iir_fast import functional
from iir_fast.head import DualCAMHead, HeadOutput
from iir_fast.kernels import backend
from iir_fast.loss import IIRLoss
from iir_fast.prototypes import ClassPrototypes

if TYPE_CHECKING:
    from iir_fast.app.runs import load
    from iir_fast.models import IIRLocalizer

__version__ = "0.1.0"

__all__ = [
    "ClassPrototypes",
    "DualCAMHead",
    "HeadOutput",
    "IIRLocalizer",
    "IIRLoss",
    "backend",
    "functional",
    "load",
]


def __getattr__(name: str) -> Any:
    # These bring timm, which takes seconds to import; who needs only the loss does not wait for it.
    if name == "IIRLocalizer":
        from iir_fast.models import IIRLocalizer

        return IIRLocalizer
    if name == "load":
        from iir_fast.app.runs import load

        return load
    raise AttributeError(f"module 'iir_fast' has no attribute {name!r}")
