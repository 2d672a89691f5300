"""The oracle of label_cam, plain differentiable torch, and what its implementations are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import Factors, accumulation_dtype


class BackwardInputs(NamedTuple):
    """What the backward pass of every implementation is given."""

    grad_cams: Tensor
    grad_pooled: Tensor
    features: Tensor
    weights: Tensor
    labels: Tensor
    features_needed: bool
    weights_needed: bool


class Maps(NamedTuple):
    """What classifiers read: one map, or a map for each of two."""

    first: Tensor
    """[B,C,P]"""
    second: Tensor | None
    """As `first`, strides and dtype included."""

    @classmethod
    def of(cls, maps: Sequence[Tensor]) -> Maps:
        """Prepare maps [B,C,H,W]; two that differ are copied."""
        if len(maps) == 1:
            return cls(maps[0].flatten(2), None)
        first, second = maps
        if first.stride() != second.stride() or first.dtype != second.dtype:
            dtype = torch.promote_types(first.dtype, second.dtype)
            first, second = (each.to(dtype).contiguous() for each in maps)
        return cls(first.flatten(2), second.flatten(2))


class Incoming(NamedTuple):
    """All that gradients of maps come from; R classifiers."""

    cams: Tensor
    """[B,R,H,W]"""
    pooled: Tensor
    """[S,B,C], whose sum it is, of one map; [M,B,C] of several."""
    beside: Factors | None = None
    """What else the gradient of the one map is to hold."""
    cuts: Tensor | None = None
    """[B,R]: gradients of thresholds' offsets, which are of `offset_weights` [R,C] and the pooled map."""
    offset_weights: Tensor | None = None


def label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features, weights)
    features, weights = features.to(dtype), weights.to(dtype)
    cams = torch.einsum("rbc,bchw->brhw", weights[:, labels], features)
    return cams, features.mean(dim=(2, 3))
