"""How work that was asked to stop says so."""

from __future__ import annotations


class Interrupted(Exception):
    """Training was asked to stop by a signal and has left a checkpoint to resume from."""
