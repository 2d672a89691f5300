"""Two classifiers on one feature map: logits and label CAMs, without class maps."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from iir_fast.kernels import RegionDescriptors, RegulatedCAMs, dual_cam
from iir_fast.kernels.contract import accumulation_dtype, check_shape

ThresholdKind = Literal["learned", "mean", "fixed"]
FIXED_THRESHOLD = 0.5
CLASS_MEAN = 0.75
"""How much IIR keeps of the mean of all classes' weights."""


class HeadOutput(NamedTuple):
    """What DualCAMHead returns."""

    logits_a: Tensor
    """[B,K] of classifier A; under autocast in its dtype."""
    logits_b: Tensor
    """[B,K] of classifier B."""
    cam_a: Tensor
    """[B,H,W]: label CAM of classifier A, float32 or float64, not normalized."""
    cam_b: Tensor
    """[B,H,W]: label CAM of classifier B."""
    regulated: RegulatedCAMs
    """The two CAMs normalized, cut at their thresholds and compared: `terms`, `masks`, `maps`, `thresholds`."""
    descriptors: RegionDescriptors
    """foreground and background [B,2,C]: the shared map under both masks and under their complements."""
    labels: Tensor
    """int64 [B]: the class each CAM belongs to."""
    features: Tensor
    """[B,C,H,W]: the shared map that the head was given."""
    branch_maps: tuple[Tensor, ...]
    """What the classifiers read: [B,hidden,H,W] of each branch, or `features` alone without branches."""

    @property
    def thresholds(self) -> Tensor:
        """[B,2] in (0,1): where each mask is cut."""
        return self.regulated.thresholds

    @property
    def certainty(self) -> Tensor:
        """[B] without gradient: how far above chance the classifiers' mean probability p of the label is.

        (K p - 1) / (K - 1): 0 at chance, 1 where both are sure, below 0 where they are wrong.
        """
        logits = torch.stack((self.logits_a, self.logits_b)).detach()
        probabilities = logits.to(accumulation_dtype(logits)).softmax(dim=2).mean(dim=0)
        classes = probabilities.shape[1]
        return (classes * probabilities.gather(1, self.labels[:, None]).squeeze(1) - 1) / max(classes - 1, 1)


class DualCAMHead(nn.Module):
    """Two branches and two classifiers on a shared map; CAMs of one class per sample in one read of each map.

    Args:
        in_channels: C of the shared map.
        num_classes: K.
        hidden: channels of each branch's 3x3 convolution (followed by batch norm and ReLU); None: both classifiers
            read the shared map itself.
        threshold: "learned": masks are cut at sigmoid((1 - tanh r) logit(mean)), with each map's own mean and r linear
            in the pooled features and zero at first: they start at the mean and stay between 0.5, half of the map's
            range, and sigmoid(2 logit(mean)), as far on the other side. Without IIRLoss nothing trains r, and
            DistributedDataParallel refuses that. "mean": at the mean itself, no parameters, for heads without IIRLoss.
            "fixed": at 0.5.
        class_mean: how much label CAMs keep of the mean of all classes' weights, in [0,1]. That mean adds the same to
            every logit of a sample, so that no cross-entropy holds it, but every label CAM shows it: with all of it,
            IIRLoss may light up what all images hold, with none of it only what tells classes apart.
            `docs/ablation.md` says on what three quarters were chosen. 1: plain CAMs.

    Raises:
        ValueError: a size is below 1, `threshold` is not one of the three, or `class_mean` is outside [0,1].
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int | None = 512,
        threshold: ThresholdKind = "learned",
        class_mean: float = CLASS_MEAN,
    ) -> None:
        super().__init__()
        for name, size in (("in_channels", in_channels), ("num_classes", num_classes), ("hidden", hidden)):
            if size is not None and size < 1:
                raise ValueError(f"DualCAMHead: {name} is {size}; accepted is 1 or more.")
        if threshold not in get_args(ThresholdKind):
            kinds = ", ".join(get_args(ThresholdKind))
            raise ValueError(f"DualCAMHead: threshold is {threshold!r}; accepted are {kinds}.")
        if not 0 <= class_mean <= 1:
            raise ValueError(f"DualCAMHead: class_mean is {class_mean}; accepted is a number in [0,1].")
        self.in_channels, self.num_classes, self.hidden, self.threshold = in_channels, num_classes, hidden, threshold
        self.class_mean = class_mean
        channels = in_channels if hidden is None else hidden
        self.branches = (
            nn.ModuleList() if hidden is None else nn.ModuleList(_branch(in_channels, hidden) for _ in range(2))
        )
        self.weight = nn.Parameter(torch.empty(2, num_classes, channels))
        self.bias = nn.Parameter(torch.empty(2, num_classes))
        bound = 1 / math.sqrt(channels)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        learned = threshold == "learned"
        self.threshold_weight = nn.Parameter(torch.zeros(2, channels)) if learned else None
        self.threshold_bias = nn.Parameter(torch.zeros(2)) if learned else None

    def forward(self, features: Tensor, labels: Tensor | None = None, class_mean: float | None = None) -> HeadOutput:
        """Compute the logits of both classifiers and the CAMs of one class per sample.

        Args:
            features: [B,C,H,W], floating.
            labels: int64 [B], the class of each sample's CAMs; None: the predicted one, largest in `class_logits`.
            class_mean: how much these CAMs keep of the mean of all classes' weights; None: what the head's keep.

        Returns:
            HeadOutput.

        Raises:
            ValueError: `features` has another shape.
            TypeError, ValueError, IndexError: as `iir_fast.functional.label_cam` says.
        """
        wanted = f"[B,{self.in_channels},H,W], channels in front of pixels"
        check_shape("DualCAMHead", "features", features, wanted, None, self.in_channels, None, None)
        maps, labels = self.read(features, labels)
        thresholds = features.new_full((len(features), 2), FIXED_THRESHOLD) if self.threshold == "fixed" else None
        found = dual_cam(
            features,
            self.weight,
            self.bias,
            labels,
            maps=(maps[0], maps[1]) if len(maps) == 2 else None,
            offset_weights=self.threshold_weight,
            offset_biases=self.threshold_bias,
            thresholds=thresholds,
            class_mean=self.class_mean if class_mean is None else class_mean,
        )
        (logits_a, logits_b), (cam_a, cam_b) = found.logits.unbind(), found.cams.unbind(1)
        regulated, descriptors = found.regulated, found.descriptors
        return HeadOutput(logits_a, logits_b, cam_a, cam_b, regulated, descriptors, labels, features, tuple(maps))

    def read(self, features: Tensor, labels: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return what the classifiers read, [B,C,H,W] for each or one for both, and the class of each CAM, int64 [B].

        `features` and `labels` are those of `forward`.
        """
        maps = [branch(features) for branch in self.branches] or [features]
        return maps, self.predict(maps) if labels is None else labels

    def predict(self, maps: list[Tensor], classifiers: int = 2) -> Tensor:
        """Choose the class of each sample, int64 [B], by the summed logits of the first classifiers.

        Args:
            maps: what these read, as `read` gives them.
            classifiers: 2 for both, 1 for A alone.
        """
        with torch.no_grad():
            pooled = torch.stack([each.mean(dim=(2, 3)) for each in maps]).to(self.weight.dtype)
            weight, bias = self.weight[:classifiers], self.bias[:classifiers].unsqueeze(1)
            logits = torch.baddbmm(bias, pooled.expand(classifiers, -1, -1), weight.transpose(1, 2))
            return logits.sum(dim=0).argmax(dim=1)

    def class_logits(self, out: HeadOutput) -> Tensor:
        """Return what decides the class of a sample, [B,K] in the dtype of the logits: the mean of both classifiers'.

        Args:
            out: what `forward` returned.
        """
        return (out.logits_a + out.logits_b) / 2

    def joint_map(self, maps: Tensor) -> Tensor:
        """Make one localization map [B,H,W] of both classifiers: the mean of their normalized CAMs.

        Args:
            maps: these CAMs [B,2,H,W] in [0,1], `RegulatedCAMs.maps`.
        """
        return maps.mean(dim=1)

    def extra_repr(self) -> str:
        return (
            f"in_channels={self.in_channels}, num_classes={self.num_classes}, hidden={self.hidden}, "
            f"threshold={self.threshold!r}, class_mean={self.class_mean}"
        )


def _branch(in_channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
    )
