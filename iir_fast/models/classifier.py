"""A network's own classifier as a localizer: plain CAM of its own classes, without any training."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

from iir_fast.functional import label_cam, regulate
from iir_fast.models.backbones import Backbone
from iir_fast.models.network import LocalizationMaps, MapName
from iir_fast.models.pretrained import read_weights

PROBE_TOLERANCE = 1e-3
"""Of the logits' largest magnitude: how far a linear classifier on pooled maps may be from the network's own logits."""


class ClassifierNetwork(nn.Module):
    """A timm classifier with CAMs of its own classes (Zhou et al., CVPR 2016).

    Args:
        name: a timm model whose classifier is one linear layer on the mean of its last feature map, as ResNets,
            EfficientNets, DenseNets, Inception, RegNets and Swin have it.
        weights: "timm" (downloaded), "package", "random" or a file, as `create_backbone` takes them.

    Attributes:
        backbone: makes the last feature map.
        weight: [K,C] of the classifier.
        bias: [K] of the classifier.

    Raises:
        ValueError: unknown name, or the classifier is not linear in the pooled map.
        FileNotFoundError, ModuleNotFoundError, RuntimeError: as `create_backbone`.
    """

    maps: tuple[MapName, ...] = ("cam",)

    def __init__(self, name: str, weights: str = "timm") -> None:
        super().__init__()
        model = _create(name, weights)
        classifier = model.get_classifier()
        config = model.pretrained_cfg
        size = config["input_size"]
        probe = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.eval()(probe)
            features = _Features(model)
            found = features(probe)
            pooled = found.mean((2, 3)) if found.dim() == 4 else None
            if pooled is None or not isinstance(classifier, nn.Linear) or not _agree(classifier(pooled), expected):
                raise ValueError(
                    f"classifier {name!r} is more than one linear layer on the mean of its last map; accepted are "
                    "networks such as resnet50, densenet121, swin_tiny_patch4_window7_224 and tf_efficientnet_lite0."
                )
        stride = round(size[-1] / found.shape[3])
        mean, std = tuple(config["mean"]), tuple(config["std"])
        self.backbone = Backbone(features, name, classifier.in_features, stride, mean, std)
        self.weight, self.bias = nn.Parameter(classifier.weight.detach()), nn.Parameter(classifier.bias.detach())
        self.image_size: int = size[-1]

    @property
    def class_names(self) -> tuple[str, ...]:
        """ImageNet's names of 1,000 classes, numbers of any other set of classes."""
        info, count = ImageNetInfo("imagenet-1k"), len(self.bias)
        if count != 1000:
            return tuple(map(str, range(count)))
        return tuple(str(info.index_to_description(index)).split(",")[0] for index in range(count))

    @torch.no_grad()
    def localize(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        maps: tuple[MapName, ...] = ("cam",),
        from_features: bool = False,
    ) -> LocalizationMaps:
        """Make the CAM of one class per image; switch the module to eval() first.

        Args:
            images: normalized images [B,3,H,W], or their feature maps [B,C,h,w] with `from_features`.
            labels: int64 [B], the class to localize; None: the predicted one.
            maps: "cam" alone.
            from_features: `images` holds feature maps.

        Returns:
            LocalizationMaps; both of its `cams` are the one CAM.

        Raises:
            ValueError: `maps` holds another than "cam".
        """
        if unknown := [name for name in maps if name not in self.maps]:
            raise ValueError(f"localize: maps holds {unknown[0]!r}; accepted is cam, all that a plain classifier has.")
        features = images if from_features else self.backbone(images)
        logits = torch.nn.functional.linear(features.mean((2, 3)), self.weight, self.bias)
        labels = logits.argmax(dim=1) if labels is None else labels
        cam = label_cam(features, self.weight.unsqueeze(0), labels)[0][:, 0]
        both = regulate(cam, cam).maps
        return LocalizationMaps(dict.fromkeys(maps, both[:, 0]), labels, logits, both)


class _Features(nn.Module):
    """The part of a timm classifier in front of its pooling, as one [B,C,h,w] map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.reset_classifier(0)
        self._channels_at_end = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        return features.permute(0, 3, 1, 2) if self._channels_at_end else features


def _create(name: str, weights: str) -> Any:
    if not timm.is_model(name):
        raise ValueError(f"unknown classifier {name!r}; accepted are timm's models, such as resnet50.")
    try:
        model: Any = timm.create_model(name, pretrained=weights == "timm")
    except Exception as error:  # the architecture alone is known to work: it is the weights
        if weights != "timm":
            raise
        raise RuntimeError(
            f"timm could not get pretrained weights for {name!r} ({type(error).__name__}: {error}). "
            "Without network access, give the path of a state dict as weights."
        ) from error
    if weights not in ("random", "timm"):
        model.load_state_dict(read_weights(weights, name))
    return model


def _agree(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= PROBE_TOLERANCE * expected.abs().max())
