"""Where the package keeps what it would otherwise compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """Name `iir_fast/<part>` in the user's cache folder: `$XDG_CACHE_HOME`, or `~/.cache`. It need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iir_fast" / part
