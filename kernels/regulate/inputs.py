"""What regulate's launches are given."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """What regulate takes."""

    cam_a: Tensor
    cam_b: Tensor
    thresholds: Tensor | None
    offsets: Tensor | None
    temperature: float


class Sources(NamedTuple):
    """What `dual_cam` makes the CAMs of, and the offsets of their thresholds if these are learned."""

    cams: Tensor
    """[S,B,2,H,W], whose sum they are."""
    pooled: Tensor
    """[1,B,C] of one map, [2,B,C] of a map for each classifier."""
    offset_weights: Tensor | None
    """[2,C]"""
    offset_biases: Tensor | None
    """[2]"""
