"""What can be wrong with a data set: found by the readers, raised by the data sets, collected by the check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NoReturn, TypeAlias

FaultKind: TypeAlias = Literal[
    "missing file",
    "corrupt line",
    "corrupt shard",
    "duplicate id",
    "missing line",
    "unlisted id",
    "no annotation",
    "label",
    "box outside",
    "image size",
    "mask size",
    "missing image",
    "unreadable image",
    "missing mask",
    "unreadable mask",
    "in two splits",
]


class Fault(ValueError):
    """One thing that is wrong with a data set.

    Attributes:
        kind: what sort of fault it is.
        message: a sentence that names the file, and the line where there is one.
    """

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: FaultKind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


OnFault: TypeAlias = Callable[[Fault], None]
"""What a reader does with a fault: raise it, or keep it and read on."""


def raise_fault(fault: Fault) -> NoReturn:
    """Stop at the first fault."""
    raise fault
