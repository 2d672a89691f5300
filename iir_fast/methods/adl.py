"""ADL (Choe and Shim, "Attention-based Dropout Layer for Weakly Supervised Object Localization", CVPR 2019).

Behind some of the backbone's stages, in training only:
    attention = mean over channels of F            drop mask = 1[attention < gamma max attention]
    F becomes F times the drop mask with probability `rate`, else F times sigmoid(attention); drawn per batch and stage
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iir_fast.methods.cam import CAM
from iir_fast.methods.method import Learner, MethodLoss, check_share
from iir_fast.models import Backbone

STAGES = 3


@dataclass(frozen=True)
class ADL(CAM):
    """The two classifiers on a backbone whose last three stages drop or weigh their most active pixels.

    For VGG16 these are pool3, pool4 and conv5_3, as in the paper; elsewhere the last three stages up to the shared map
    (`Backbone.stages`). A threshold of 0.8 is in the commands that the authors published for VGG16 on CUB and ILSVRC;
    the default of "Evaluating Weakly Supervised Object Localization Methods Right"'s code is 0.9.
    """

    changes_inputs = True
    hooks_backbone = True
    rate: float = 0.75
    """Probability of the drop mask rather than the importance map; 0.75 in the paper and in its authors' code."""
    threshold: float = 0.8
    """Gamma, the share of the attention's maximum at which pixels are dropped."""

    def __post_init__(self) -> None:
        check_share("ADL", rate=self.rate, threshold=self.threshold)

    def loss(self, learner: Learner, inputs: Tensor, labels: Tensor) -> MethodLoss:
        with self.attached(learner.model.backbone):
            return super().loss(learner, inputs, labels)

    @contextmanager
    def attached(self, backbone: Backbone) -> Iterator[None]:
        """While it lasts, the backbone's last stages drop or weigh what they make; one draw for each.

        Args:
            backbone: of the network in training.

        Raises:
            ValueError: the backbone has no stages that make [B,C,h,w] maps.
        """
        names = backbone.stages[-STAGES:]
        if not names:
            raise ValueError(f"ADL: backbone {backbone.name!r} has no known stages with maps [B,C,h,w] to attach to.")
        drops = torch.rand(len(names)) < self.rate
        with ExitStack() as hooks:
            for name, drop in zip(names, drops, strict=True):

                def hook(layer: nn.Module, inputs: object, output: Tensor, drop: Tensor = drop) -> Tensor:
                    return self.drop_or_weigh(output, drop)

                # First of all hooks: one of timm's may be what reads the map.
                hooks.enter_context(backbone.net.get_submodule(name).register_forward_hook(hook, prepend=True))
            yield

    def drop_or_weigh(self, features: Tensor, drop: Tensor) -> Tensor:
        """Multiply features with the drop mask, or with the importance map.

        Args:
            features: [B,C,h,w], floating.
            drop: bool scalar: which of the two.

        Returns:
            [B,C,h,w], in the dtype of the features.
        """
        attention = features.mean(dim=1, keepdim=True)
        kept = attention < self.threshold * attention.amax(dim=(2, 3), keepdim=True)
        return features * torch.where(drop.to(features.device), kept.to(features.dtype), attention.sigmoid())
