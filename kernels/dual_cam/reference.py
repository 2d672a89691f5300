"""The oracle of dual_cam, plain differentiable torch, and what its implementations are given."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype
from iir_fast.kernels.label_cam.reference import label_cam
from iir_fast.kernels.masked_pool.reference import masked_pool
from iir_fast.kernels.regulate import TEMPERATURE
from iir_fast.kernels.regulate.reference import regulate


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
    class_mean: float
    """How much of the mean of all classes' weights is in those of the CAMs."""

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """What the classifiers read: one map for both, or one each."""
        return (self.features,) if self.map_a is None or self.map_b is None else (self.map_a, self.map_b)

    @property
    def weights_by_map(self) -> tuple[Tensor, ...]:
        """Weights [R,K,D] of those that read each map."""
        count = 2 // len(self.maps)
        return tuple(self.weights[r : r + count] for r in range(0, 2, count))

    @property
    def has_rows(self) -> bool:
        """Tell whether CAMs have weights of their own: each sample's row, less some of the mean of all."""
        return self.class_mean != 1

    def of_cams(self, rows: Tensor, places: Tensor) -> Inputs:
        """Return what makes the CAMs: rows [2,B,D] for weights and samples' places [B] for labels, if there are any."""
        return self._replace(weights=rows, labels=places) if self.has_rows else self


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
    rows: Tensor
    """[2,B,D]: each sample's row of the CAMs' weights; empty if these are the logits'."""
    places: Tensor
    """int64 [B]: 0, 1, 2 and so on, to read `rows` by; empty with them."""


class Found(NamedTuple):
    """Gradients on the way, of what was read and pooled."""

    features: Tensor
    """[B,C,H,W]: of the shared map, or of the map that is pooled only; empty if not needed."""
    maps: list[Tensor]
    """Of the classifiers' own; empty if not needed."""
    per_sample: Tensor
    """[B,1,2,C] of the weights; B is 0 if not needed."""
    cuts: Tensor | None
    """[B,2] of given thresholds or of offsets, if there are any."""


def dual_cam(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = Inputs(*arguments)
    # Wide at once: the gradients that meet here are rounded once.
    weights, of_logits = inputs.weights.to(accumulation_dtype(inputs.weights)), inputs.of_logits
    common = (1 - inputs.class_mean) * weights.mean(dim=1, keepdim=True) if inputs.has_rows else 0
    of_cams = inputs._replace(weights=weights - common)
    found = [
        label_cam(each, of_map, inputs.labels) for each, of_map in zip(inputs.maps, of_cams.weights_by_map, strict=True)
    ]
    cams = torch.cat([each for each, _ in found], dim=1)
    pooled = torch.stack([each for _, each in found]).expand(2, -1, -1)
    lowered, of_classes = pooled.to(of_logits), weights.to(of_logits)
    logits = torch.einsum("rbd,rkd->rbk", lowered, of_classes) + inputs.biases.to(of_logits)[:, None]
    offsets = None
    if inputs.offset_weights is not None and inputs.offset_biases is not None:
        offsets = torch.einsum("rbd,rd->br", pooled, inputs.offset_weights.to(pooled.dtype))
        offsets = offsets + inputs.offset_biases.to(pooled.dtype)
    cam_a, cam_b = cams.unbind(1)
    terms, masks, normalized, cuts = regulate(cam_a, cam_b, inputs.thresholds, offsets, TEMPERATURE)
    return logits, cams, terms, masks, normalized, cuts, *masked_pool(inputs.features, masks)
