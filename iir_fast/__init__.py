"""Weakly supervised object localization with inter-intra regulated CAMs (a reconstruction).

>>> from iir_fast import DualCAMHead, IIRLoss
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iir_fast import functional
from iir_fast.extras import needs_system
from iir_fast.head import DualCAMHead, HeadOutput
from iir_fast.kernels import backend
from iir_fast.loss import IIRLoss
from iir_fast.prototypes import ClassPrototypes
from iir_fast.sampler import SubgroupSampler

if TYPE_CHECKING:
    from iir_fast.app.runs import load
    from iir_fast.models import IIRNetwork

__version__ = "0.1.0"

__all__ = [
    "ClassPrototypes",
    "DualCAMHead",
    "HeadOutput",
    "IIRLoss",
    "IIRNetwork",
    "SubgroupSampler",
    "backend",
    "functional",
    "load",
]


def __getattr__(name: str) -> Any:
    # These belong to the system: an extra, and seconds to import. Who needs only the loss does without.
    if name == "IIRNetwork":
        from iir_fast.models import IIRNetwork

        return IIRNetwork
    if name == "load":
        with needs_system("iir_fast.load"):
            from iir_fast.app.runs import load

        return load
    raise AttributeError(f"module 'iir_fast' has no attribute {name!r}")
