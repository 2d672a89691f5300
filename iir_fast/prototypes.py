"""Class prototypes: what training remembers of each class's foreground, for the evidence map at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iir_fast.kernels import segment_sum

MOMENTUM = 0.9


class ClassPrototypes(nn.Module):
    """Moving average (0.9) of the foreground descriptors f_A + f_B of each class; part of the checkpoint.

    Args:
        num_classes: K.
        channels: C, of the shared map.

    Attributes:
        vectors: float32 [K,C] buffer; zero for a class that was never seen.
        seen: bool [K] buffer.
    """

    vectors: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(num_classes, channels))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, foreground: Tensor, labels: Tensor) -> None:
        """Take in one batch; a class's samples count as their mean, and a class seen first starts there.

        Args:
            foreground: [B,2,C], floating: foreground descriptors of both classifiers, any length.
            labels: int64 [B].
        """
        classes = len(self.vectors)
        rows = _unit_sum(foreground).to(self.vectors.dtype)
        counts = segment_sum(torch.ones_like(rows[:, :1]), labels, classes)
        mean = segment_sum(rows, labels, classes) / counts.clamp(min=1)
        moved = torch.where(self.seen.unsqueeze(1), torch.lerp(mean, self.vectors, MOMENTUM), mean)
        present = counts > 0
        self.vectors.copy_(torch.where(present, moved, self.vectors))
        self.seen.logical_or_(present.squeeze(1))

    @torch.no_grad()
    def evidence_vectors(self, background: Tensor, labels: Tensor) -> Tensor:
        """Make the vectors v [B,1,C] whose evidence map is cos(F, P_y) - cos(F, g).

        Args:
            background: [B,2,C]: the image's own background descriptors of both classifiers, any length.
            labels: int64 [B]. A class that was never seen has no prototype and leaves -cos(F, g).

        Returns:
            [B,1,C], what `iir_fast.functional.evidence_map` takes.
        """
        prototype = F.normalize(self.vectors[labels], dim=1)
        return (prototype - F.normalize(_unit_sum(background), dim=1)).unsqueeze(1)


def _unit_sum(descriptors: Tensor) -> Tensor:
    """Sum the unit descriptors of all classifiers: [B,R,C] -> [B,C]."""
    return F.normalize(descriptors, dim=2).sum(dim=1)
