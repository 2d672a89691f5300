"""A JSON list with an entry a line, written as entries come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TextIO


def write_list(entries: Iterable[Mapping[str, Any]], out: TextIO) -> None:
    """Write a list; where `entries` ends with an error, what came before is a whole document.

    Raises:
        ValueError: an entry holds NaN, which JSON does not have.
    """
    before = "["
    try:
        for entry in entries:
            out.write(f"{before}\n  {json.dumps(entry, allow_nan=False)}")
            before = ","
    finally:
        out.write("[]\n" if before == "[" else "\n]\n")
