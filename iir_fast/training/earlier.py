"""Configurations as earlier versions wrote them into the folders of runs: the options of all methods, on one level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPTIONS = {
    "iir": {name: name for name in ("intra_weight", "inter_weight", "regulation", "temperature", "threshold", "hard")},
    "has": {"has_grid": "grid", "has_rate": "rate"},
    "acol": {"acol_threshold": "threshold"},
    "spg": {"spg_high": "high", "spg_low": "low"},
    "adl": {"adl_rate": "rate", "adl_threshold": "threshold"},
    "cutmix": {"cutmix_beta": "beta", "cutmix_rate": "rate"},
}
"""What was an option of a method then, and its name now."""
ALL = {name for names in OPTIONS.values() for name in names}


def from_earlier(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a configuration with those of its own method alone, if it has those of all methods.

    Args:
        options: what a file holds, of an earlier version or of this one; the latter is returned as it is.
    """
    if not options.keys() >= ALL:
        return options
    own = OPTIONS.get(str(options.get("method", "iir")), {})
    kept = {name: value for name, value in options.items() if name not in ALL}
    return kept | {new: options[old] for old, new in own.items()}
