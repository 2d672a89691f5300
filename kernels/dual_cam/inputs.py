"""What dual_cam is given, for every implementation of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """What dual_cam takes."""

    features: Tensor
    map_a: Tensor | None
    map_b: Tensor | None
    weights: Tensor
    biases: Tensor
    labels: Tensor
    offset_weights: Tensor | None
    offset_biases: Tensor | None
    thresholds: Tensor | None
    of_logits: torch.dtype
    """Of the logits, and of the matrix products that make them and their gradients."""

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """What the classifiers read: one map for both, or one each."""
        return (self.features,) if self.map_a is None or self.map_b is None else (self.map_a, self.map_b)

    @property
    def weights_by_map(self) -> tuple[Tensor, ...]:
        """Weights [R,K,D] of those that read each map."""
        count = 2 // len(self.maps)
        return tuple(self.weights[r : r + count] for r in range(0, 2, count))


class Gradients(NamedTuple):
    """Of the results; None for one that nothing depends on."""

    logits: Tensor | None
    cams: Tensor | None
    terms: Tensor | None
    masks: Tensor | None
    maps: Tensor | None
    thresholds: Tensor | None
    foreground: Tensor | None
    background: Tensor | None


class Saved(NamedTuple):
    """Results that the backward pass needs."""

    cams: Tensor
    masks: Tensor
    foreground: Tensor
    background: Tensor
    pooled: Tensor
    """[1,B,C] of the shared map, or [2,B,D] of the classifiers' own."""
    offsets: Tensor
    """[B,2]; empty if there are none."""
