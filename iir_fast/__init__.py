"""Weakly supervised object localization with inter-intra regulated CAMs (a reconstruction).

>>> from iir_fast import DualCAMHead, IIRLoss
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iir_fast.extras import needs_system

if TYPE_CHECKING:
    from iir_fast import functional
    from iir_fast.app.pretrained import pretrained
    from iir_fast.app.runs import load
    from iir_fast.head import DualCAMHead, HeadOutput
    from iir_fast.kernels import backend
    from iir_fast.loss import IIRLoss
    from iir_fast.models import IIRNetwork, Localizer
    from iir_fast.prototypes import ClassPrototypes
    from iir_fast.sampler import SubgroupSampler

__version__ = "0.1.0"

__all__ = [
    "ClassPrototypes",
    "DualCAMHead",
    "HeadOutput",
    "IIRLoss",
    "IIRNetwork",
    "Localizer",
    "SubgroupSampler",
    "backend",
    "functional",
    "load",
    "pretrained",
]

# Imported when they are asked for: torch takes seconds, and the command line needs none of it to answer.
_HOMES = {
    "ClassPrototypes": "iir_fast.prototypes",
    "DualCAMHead": "iir_fast.head",
    "HeadOutput": "iir_fast.head",
    "IIRLoss": "iir_fast.loss",
    "SubgroupSampler": "iir_fast.sampler",
    "backend": "iir_fast.kernels",
}
# These belong to the system: an extra. Who needs only the loss does without.
_SYSTEM = {
    "IIRNetwork": "iir_fast.models",
    "Localizer": "iir_fast.models",
    "load": "iir_fast.app.runs",
    "pretrained": "iir_fast.app.pretrained",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module("iir_fast.functional")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name not in _SYSTEM:
        raise AttributeError(f"module 'iir_fast' has no attribute {name!r}")
    with needs_system(f"iir_fast.{name}"):
        return getattr(import_module(_SYSTEM[name]), name)
