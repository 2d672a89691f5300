"""The head of ACoL: classifier B reads what classifier A leaves over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iir_fast.functional import label_cam, regulate
from iir_fast.head import DualCAMHead, HeadOutput, ThresholdKind


class ErasingHead(DualCAMHead):
    """A DualCAMHead whose second classifier reads the shared map erased where the first one is sure of the label.

    As in ACoL (Zhang et al., CVPR 2018): where A's normalized label CAM reaches `erase`, B's features are zero, in
    training and in localization. B's logits then depend on the class whose CAM erased: A alone decides the class. The
    localization map is the larger of the two CAMs at each pixel.

    Args:
        in_channels, num_classes, hidden, threshold: as in DualCAMHead; its CAMs are plain ones.
        erase: ACoL's delta, in (0,1].

    Raises:
        ValueError: as DualCAMHead, or `erase` is out of its range.
    """

    def __init__(
        self, in_channels: int, num_classes: int, hidden: int | None, threshold: ThresholdKind, erase: float
    ) -> None:
        super().__init__(in_channels, num_classes, hidden, threshold, class_mean=1.0)
        if not 0 < erase <= 1:
            raise ValueError(f"ErasingHead: erase is {erase}; accepted is a number in (0,1].")
        self.erase = erase

    def read(self, features: Tensor, labels: Tensor | None) -> tuple[list[Tensor], Tensor]:
        branch_a, branch_b = self.branches or (nn.Identity(), nn.Identity())
        map_a = branch_a(features)
        with torch.no_grad():
            labels = self.predict([map_a], classifiers=1) if labels is None else labels
            cam_a = label_cam(map_a, self.weight[:1], labels).cams.squeeze(1)
            kept = regulate(cam_a, cam_a).maps[:, :1] < self.erase
        return [map_a, branch_b(features * kept)], labels

    def class_logits(self, out: HeadOutput) -> Tensor:
        return out.logits_a

    def joint_map(self, maps: Tensor) -> Tensor:
        return maps.amax(dim=1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, erase={self.erase}"
