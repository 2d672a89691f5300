"""Localizer: maps of the classes that any classifier knows, read by a hook, without training."""

from __future__ import annotations

from collections.abc import Iterable
from math import log, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iir_fast.functional import label_cam, regulate
from iir_fast.kernels.contract import accumulation_dtype, check_integer_vector, check_range
from iir_fast.models.network import LocalizationMaps, next_classes
from iir_fast.names import MapName

MAX_PREFIX = 16
"""Tokens in front of those of the patches, where a model does not say how many."""


class Localizer(nn.Module):
    """A classifier of one's own, as it is, with a map of any of its classes.

        localizer = iir_fast.Localizer(model.eval(), "layer4")
        found = localizer(images)  # normalized, [B,3,H,W]
        print(found.labels, found.maps["cam"].shape)

    With S the score of a class before the softmax, and F [C,h,w] what the layer makes of an image:

        a_c = sum_p dS / dF[c,p]
        M[p] = sum_c a_c F[c,p], min-max normalized

    Where the classifier is linear in the mean of F, as behind the last maps of ResNets, EfficientNets and Swin, a is
    the class's row of its weights, and M is the CAM of Zhou et al., "Learning Deep Features for Discriminative
    Localization", CVPR 2016. Everywhere else, as in a ViT that reads its class token, a / (h w) are the weights of
    Grad-CAM (Selvaraju et al., ICCV 2017), and M is Grad-CAM without its last ReLU.

    F may be maps [B,C,H,W], maps [B,H,W,C] or tokens [B,N,C]. Of the first two it is the one with the proportions of
    the images, [B,C,H,W] if both have. Of tokens, those in front of the patches' (class, registers) are left out: as
    many as the model's `num_prefix_tokens`, or else the fewest, up to 16, that leave a grid of these proportions. F is
    not copied. Only what lies behind the layer is recorded for the gradient, and no hook stays on the model.

    Args:
        model: images to logits [B,K]; in eval mode whenever it is called.
        layer: the layer whose result is F, or its name in `model.named_modules()`; of a layer that runs several times,
            the last result. In a ViT that reads its class token it must lie in front of the last attention, such as
            "blocks.11.norm1". None: F is what `forward_features` makes, which timm's models have.

    Raises:
        ValueError: the model has no such layer, or none is named and it is none of timm's.
    """

    maps: tuple[MapName, ...] = ("cam",)
    """Maps that it makes, the default first."""

    def __init__(self, model: nn.Module, layer: str | nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.layer = _name_of(layer, model)

    def extra_repr(self) -> str:
        return f"layer={self.layer!r}"

    def forward(self, images: Tensor, labels: Tensor | None = None) -> LocalizationMaps:
        """Make the map of one class per image.

        Args:
            images: [B,3,H,W], normalized as the model wants them.
            labels: int64 [B], the class of each image's map; None: the predicted one.

        Returns:
            LocalizationMaps, whose `maps` hold "cam"; both of its `cams` are this map.

        Raises:
            TypeError: `labels` are not int64.
            ValueError: the model is in training mode, its result or the layer's has another shape than said above, or
                the score of the class does not depend on the layer.
            IndexError: a label is outside [0,K) (looked at on the CPU only).
        """
        reading = self._read(images)
        if labels is None:
            return self._localize(reading, reading.logits.argmax(dim=1))
        check_integer_vector("Localizer", "labels", labels, len(images))
        check_range("Localizer", "labels", labels, reading.logits.shape[1] - 1)
        return self._localize(reading, labels)

    def localize_top(self, images: Tensor, top_k: int, map: MapName = "cam") -> list[LocalizationMaps]:
        """Localize the most probable class of each image, then the next one, and so on; the model runs once.

        Args:
            images: as `forward` takes them.
            top_k: how many classes, from 1 to K.
            map: "cam", all that there is.

        Returns:
            For each rank what `forward` returns.

        Raises:
            ValueError: as `forward`, or `map` is another one.
        """
        if map not in self.maps:
            raise ValueError(f"map is {map!r}; accepted is 'cam', the one that a plain classifier has.")
        reading = self._read(images)
        best = self._localize(reading, reading.logits.argmax(dim=1))
        return [best, *(self._localize(reading, labels) for labels in next_classes(best, top_k))]

    def _read(self, images: Tensor) -> _Reading:
        if self.model.training:
            raise ValueError(
                "Localizer: the model is in training mode, where an image changes the results of others; call "
                "model.eval() first."
            )
        results: list[Tensor] = []

        def record_from_here(result: Any) -> Tensor:
            results.append(self._check_result(result, len(images)).detach().requires_grad_())
            torch.set_grad_enabled(True)  # until the enclosing no_grad() ends
            return results[-1]

        try:
            # What inference_mode() makes could not be recorded.
            with torch.inference_mode(False), torch.no_grad():
                if self.layer is None:
                    timm_model: Any = self.model
                    logits = timm_model.forward_head(record_from_here(timm_model.forward_features(images)))
                else:
                    layer = self.model.get_submodule(self.layer)
                    with layer.register_forward_hook(lambda module, inputs, result: record_from_here(result)):
                        logits = self.model(images)
        except RuntimeError as error:
            if "in-place operation" not in str(error):
                raise
            raise ValueError(
                f"Localizer: the result of {self._source} is changed in place by a layer behind it; name that layer, "
                "or make it with inplace=False."
            ) from error
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            raise ValueError(f"Localizer: the model makes {_describe(logits)}; logits [{len(images)},K] are accepted.")
        if not results or not logits.requires_grad:
            raise self._independent()
        return _Reading(results[-1], logits, (images.shape[2], images.shape[3]))

    def _localize(self, reading: _Reading, labels: Tensor) -> LocalizationMaps:
        # A sample's score depends on its own maps alone: the gradient of their sum is that of every score.
        score = torch.zeros_like(reading.logits).scatter_(1, labels.unsqueeze(1), 1)
        (of_all,) = torch.autograd.grad(reading.logits, reading.result, score, retain_graph=True, allow_unused=True)
        if of_all is None:
            raise self._independent()
        gradient, features = (self._as_maps(each, reading.size) for each in (of_all, reading.result.detach()))
        if of_all.any() and not gradient.any():
            raise ValueError(
                f"Localizer: the class does not depend on the patches' tokens of {self._source}, as the model reads "
                "its class token alone behind it; name a layer in front of its last attention, such as "
                "'blocks.11.norm1' of a ViT with 12 blocks."
            )
        weights = gradient.sum((2, 3), dtype=accumulation_dtype(gradient))
        with torch.no_grad():
            # Every sample has weights of its own: it is its own class.
            samples = torch.arange(len(weights), device=weights.device)
            cams = label_cam(features, weights.unsqueeze(0), samples).cams[:, 0]
            maps = regulate(cams, cams).maps
        return LocalizationMaps({"cam": maps[:, 0]}, labels, reading.logits.detach(), maps)

    def _as_maps(self, result: Tensor, size: tuple[int, int]) -> Tensor:
        """View maps or tokens of images of that height and width as [B,C,h,w]."""
        height, width = size
        if result.dim() == 4:
            as_last, as_first = (abs(log(h * width / (w * height))) for h, w in (result.shape[2:], result.shape[1:3]))
            return result if as_last <= as_first else result.permute(0, 3, 1, 2)
        modules: Iterable[Any] = self.model.modules()
        known = [module.num_prefix_tokens for module in modules if hasattr(module, "num_prefix_tokens")]
        for prefix in (*known[:1], *range(MAX_PREFIX + 1)):
            patches = max(result.shape[1] - prefix, 0)
            scale = sqrt(patches / (height * width))
            grid = round(height * scale), round(width * scale)
            if patches and grid[0] * grid[1] == patches:
                tokens: Tensor = result[:, prefix:].unflatten(1, grid)
                return tokens.permute(0, 3, 1, 2)
        raise ValueError(
            f"Localizer: {self._source} makes {result.shape[1]} tokens, of which no grid with the proportions of "
            f"{height}x{width} images can be made."
        )

    def _check_result(self, result: object, images: int) -> Tensor:
        if not (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and result.dim() in (3, 4)
            and len(result) == images
            and result.numel()
        ):
            raise ValueError(
                f"Localizer: {self._source} makes {_describe(result)}; accepted is a layer that makes one floating "
                f"tensor [{images},C,H,W], [{images},H,W,C] or [{images},N,C]."
            )
        return result

    def _independent(self) -> ValueError:
        return ValueError(f"Localizer: the logits do not depend on {self._source}; name a layer they are made from.")

    @property
    def _source(self) -> str:
        return "forward_features" if self.layer is None else f"layer {self.layer!r}"


class _Reading(NamedTuple):
    """A model's pass over some images."""

    result: Tensor
    """What the layer made."""
    logits: Tensor
    """[B,K], recorded from there."""
    size: tuple[int, int]
    """Height and width of the images."""


def _name_of(layer: str | nn.Module | None, model: nn.Module) -> str | None:
    if layer is None:
        if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
            return None
        raise ValueError(
            f"Localizer: no layer is named, and {type(model).__name__} has no forward_features and forward_head, as "
            "timm's models have; name the layer whose maps are to be read."
        )
    modules: dict[str, nn.Module] = dict(model.named_modules())
    for name, module in modules.items():
        if name and (layer == name or layer is module):
            return name
    what = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
    raise ValueError(f"Localizer: layer is {what}; accepted is a module of the model, or its name there.")


def _describe(result: object) -> str:
    if isinstance(result, Tensor):
        return f"{str(result.dtype).removeprefix('torch.')} {list(result.shape)}"
    return f"a {type(result).__name__}"
