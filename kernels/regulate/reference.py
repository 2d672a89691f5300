"""The oracle of regulate, plain differentiable torch, and what its implementations are given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, accumulation_dtype, nan_if_infinite


class Inputs(NamedTuple):
    """What regulate takes."""

    cam_a: Tensor
    cam_b: Tensor
    thresholds: Tensor | None
    offsets: Tensor | None
    temperature: float

    @property
    def given(self) -> Tensor | None:
        """Thresholds or offsets, whichever there are."""
        return self.offsets if self.thresholds is None else self.thresholds


class Gradients(NamedTuple):
    """Of the results; None for one that nothing depends on."""

    terms: Tensor
    masks: Tensor
    maps: Tensor | None
    thresholds: Tensor | None


def normalize(cam: Tensor) -> Tensor:
    """Compute (P - min) / (max - min) per sample; a constant map becomes zero with zero gradient."""
    low, high = cam.amin(dim=(1, 2), keepdim=True), cam.amax(dim=(1, 2), keepdim=True)
    span = high - low
    flat = span <= FLAT_RELATIVE * torch.maximum(low.abs(), high.abs()) + FLAT_ABSOLUTE
    return (cam - low) / torch.where(flat, torch.inf, nan_if_infinite(span))


def regulate(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(cam_a, cam_b)
    map_a, map_b = normalize(cam_a.to(dtype)), normalize(cam_b.to(dtype))
    maps = torch.stack((map_a, map_b), dim=1)
    cut = maps.mean(dim=(2, 3)) if thresholds is None else thresholds.to(dtype).clone()
    if offsets is not None:
        cut = torch.sigmoid((1 - torch.tanh(offsets.to(dtype))) * torch.logit(cut, eps=MEAN_MARGIN))
    masks = torch.sigmoid((maps - cut[:, :, None, None]) / temperature)
    mask_a, mask_b = masks.unbind(dim=1)
    adversarial = mask_a * mask_b * map_a * map_b
    cooperative = (1 - mask_a) * (1 - mask_b) * (map_a - map_b) ** 2
    disagreement = mask_a * (1 - mask_b) + mask_b * (1 - mask_a)
    terms = torch.stack((adversarial + cooperative, disagreement), dim=1).mean(dim=(2, 3))
    return terms, masks, maps, cut
