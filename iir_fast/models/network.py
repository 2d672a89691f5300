"""IIRNetwork: a backbone, the two classifiers and the class prototypes, from images to localization maps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iir_fast.functional import evidence_map, regulate
from iir_fast.head import CLASS_MEAN, DualCAMHead, HeadOutput, ThresholdKind
from iir_fast.models.backbones import create_backbone
from iir_fast.models.erasing_head import ErasingHead
from iir_fast.names import DEFAULT_MAP, MAPS, MapName
from iir_fast.prototypes import ClassPrototypes


class LocalizationMaps(NamedTuple):
    """Localization maps of one class per image, as IIRNetwork.localize makes them."""

    maps: dict[MapName, Tensor]
    """For each map asked for [B,H,W], in [0,1], at the resolution of the features."""
    labels: Tensor
    """int64 [B]: the class each map belongs to."""
    logits: Tensor
    """[B,K]: what decides the class, `DualCAMHead.class_logits`."""
    cams: Tensor
    """[B,2,H,W], in [0,1]: the CAM of each classifier, of the same classes and resolution as the maps."""


def next_classes(best: LocalizationMaps, top_k: int) -> tuple[Tensor, ...]:
    """Rank the classes of each image behind the one that was localized: int64 [B] for each rank, up to `top_k`."""
    # Rounding must not rank the class that the network itself chose behind one as probable.
    logits = best.logits.scatter(1, best.labels[:, None], torch.inf)
    return logits.argsort(dim=1, descending=True, stable=True)[:, 1:top_k].unbind(dim=1)


class IIRNetwork(nn.Module):
    """Any feature backbone with the two classifiers and class prototypes.

    Args:
        backbone: name of a timm model with feature maps, or "small_cnn".
        num_classes: K.
        weights: "random", "timm", "package" or a file, as `create_backbone` says.
        output_stride: stride of the feature map, e.g. 16 for 14x14 from 224; None: the architecture's own.
        out_index: which of the architecture's feature maps is read, as `create_backbone` says.
        hidden: channels of each branch of the head, as in DualCAMHead.
        threshold: "learned", "mean" or "fixed", as in DualCAMHead.
        class_mean: as in DualCAMHead.
        erase: the head is an ErasingHead with this delta, whatever `class_mean` is; None: a DualCAMHead.

    Raises:
        ValueError: as `create_backbone` and the head say.
    """

    maps: tuple[MapName, ...] = MAPS
    """Maps that it makes, the default first."""

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        weights: str = "random",
        output_stride: int | None = None,
        out_index: int | None = None,
        hidden: int | None = 512,
        threshold: ThresholdKind = "learned",
        class_mean: float = CLASS_MEAN,
        erase: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = create_backbone(backbone, weights, output_stride, out_index)
        channels = self.backbone.channels
        if erase is None:
            self.head = DualCAMHead(channels, num_classes, hidden, threshold, class_mean)
        else:
            self.head = ErasingHead(channels, num_classes, hidden, threshold, erase)
        self.centred = False
        """Whether `localize` takes CAMs that keep nothing of the mean of all classes' weights, and "both" is one."""
        self.prototypes = ClassPrototypes(num_classes, channels)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, from_features: bool = False
    ) -> tuple[Tensor, HeadOutput]:
        """Run backbone and head.

        Args:
            images: normalized images [B,3,H,W], or their shared maps [B,C,h,w] with `from_features`.
            labels: int64 [B], the class of each image's CAMs; None: the predicted one.
            from_features: `images` holds shared maps, as a feature cache does.

        Returns:
            The shared map [B,C,h,w], and the head's output.

        Raises:
            TypeError, ValueError, IndexError: as `DualCAMHead.forward`.
        """
        features = images if from_features else self.backbone(images)
        return features, self.head(features, labels)

    @torch.no_grad()
    def localize(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        maps: tuple[MapName, ...] = (DEFAULT_MAP,),
        from_features: bool = False,
    ) -> LocalizationMaps:
        """Make localization maps of one class per image; switch the module to eval() first.

        Args:
            images: normalized images [B,3,H,W], or their shared maps [B,C,h,w] with `from_features`.
            labels: int64 [B], the class to localize; None: the predicted one.
            maps: "cam" = `DualCAMHead.joint_map`; "evidence" = cos(F, class prototype) - cos(F, the image's
                background), min-max normalized; "both" = square root of their product, and "cam" where the network is
                `centred`: what the classes' foregrounds share, and the prototypes with them, is not the object there.
            from_features: `images` holds shared maps, as a feature cache does.

        Returns:
            LocalizationMaps, with every map asked for.

        Raises:
            ValueError: `maps` holds another than these three.
        """
        unknown = [name for name in maps if name not in MAPS]
        if unknown:
            raise ValueError(f"localize: maps holds {unknown[0]!r}; accepted are {', '.join(MAPS)}.")
        features = images if from_features else self.backbone(images)
        out: HeadOutput = self.head(features, labels, 0.0 if self.centred else None)
        regulated = out.regulated
        cam = self.head.joint_map(regulated.maps)
        vectors = self.prototypes.evidence_vectors(out.descriptors.background, out.labels)
        evidence = evidence_map(features, vectors).squeeze(1)
        # regulate's normalization is the one definition of a map in [0,1].
        evidence = regulate(evidence, evidence).maps[:, 0]
        both = cam if self.centred else (cam * evidence).sqrt()
        every: dict[MapName, Tensor] = {"cam": cam, "evidence": evidence, "both": both}
        return LocalizationMaps(
            {name: every[name] for name in maps}, out.labels, self.head.class_logits(out), regulated.maps
        )

    def localize_top(self, images: Tensor, top_k: int, map: MapName = DEFAULT_MAP) -> list[LocalizationMaps]:
        """Localize the most probable class of each image, then the next one, and so on; the backbone runs once.

        Args:
            images: as `localize` takes them.
            top_k: how many classes, from 1 to K.
            map: as `localize` names them.

        Returns:
            For each rank what `localize` returns.

        Raises:
            ValueError: as `localize`.
        """
        with torch.no_grad():
            features = self.backbone(images)
        best = self.localize(features, None, (map,), from_features=True)
        others = next_classes(best, top_k)
        return [best, *(self.localize(features, labels, (map,), from_features=True) for labels in others)]
