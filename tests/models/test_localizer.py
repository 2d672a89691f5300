"""Localizer: maps of a classifier's own classes, by CAM and Grad-CAM written out, whatever the layer's layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from iir_fast import Localizer
from iir_fast.models import localizer

CLASSES = 5
IMAGES = 3


def resnet() -> nn.Module:
    return ResNet(BasicBlock, (1, 1, 1, 1), channels=(4, 4, 8, 12), num_classes=CLASSES)


def swin() -> nn.Module:
    options = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
    return SwinTransformer(num_classes=CLASSES, **options)


def vit(**options: object) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    return VisionTransformer(**sizes, **options)


class Tokens(nn.Module):
    """Tokens [B, 3 + N, C] of patches of 8x8, behind three that say nothing; linear in the mean of the others."""

    def __init__(self, front: int = 3) -> None:
        super().__init__()
        self.front = front
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.Identity()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        front = torch.zeros(len(images), self.front, 6)
        return self.head(self.norm(torch.cat((front, tokens), dim=1))[:, self.front :].mean(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "resnet": (resnet, "layer4", 32),
    "swin": (swin, "norm", 8),
    "vit": (vit, "blocks.1.norm1", 8),
    "vit, register tokens": (lambda: vit(reg_tokens=8), "blocks.1.norm1", 8),
    "vit, pooled": (lambda: vit(global_pool="avg"), "blocks.1", 8),
    "tokens": (Tokens, "norm", 8),
}
"""What builds a model, the layer that is read, and its stride in pixels."""


def make(name: str) -> tuple[nn.Module, str, int]:
    build, layer, stride = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():  # biases and norms are constants otherwise
        nn.init.normal_(parameter, std=0.3)
    return model, layer, stride


def images_of(stride: int, height: int = 4, width: int = 4) -> Tensor:
    """Images of which a layer of that stride makes a grid of that height and width."""
    shape = IMAGES, 3, stride * height, stride * width
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def channels_first(name: str, result: Tensor, grid: tuple[int, int] = (4, 4)) -> Tensor:
    """A copy of what the layer makes, as [B,C,h,w], by what is known of each model."""
    if name == "resnet":
        return result.clone()
    if name == "swin":
        return torch.stack(result.unbind(3), dim=1)
    prefix = {"vit, register tokens": 9, "tokens": 3}.get(name, 1)
    return result[:, prefix:].transpose(1, 2).reshape(len(result), -1, *grid)


def in_unit_range(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_the_layers_result_weighted_by_the_gradient_of_the_score(name):
    model, layer, stride = make(name)
    images, labels = images_of(stride), torch.tensor([4, 0, 2])
    kept: list[Tensor] = []
    with model.get_submodule(layer).register_forward_hook(lambda module, inputs, result: kept.append(result)):
        logits = model(images)
    (gradient,) = torch.autograd.grad(logits[range(IMAGES), labels].sum(), kept[0])
    weights = channels_first(name, gradient).mean((2, 3), keepdim=True)
    expected = in_unit_range((weights * channels_first(name, kept[0])).sum(1))
    found = Localizer(model, layer)(images, labels)
    assert found.labels is labels
    torch.testing.assert_close(found.logits, logits.detach())
    torch.testing.assert_close(found.maps["cam"], expected.detach(), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(cam, found.maps["cam"]) for cam in found.cams.unbind(1))
    assert torch.equal(Localizer(model, model.get_submodule(layer))(images).labels, logits.argmax(1))


@pytest.mark.parametrize(("name", "classifier"), [("resnet", "fc"), ("swin", "head.fc"), ("tokens", "head")])
def test_behind_a_mean_and_a_linear_layer_it_is_the_cam(name, classifier):
    model, layer, stride = make(name)
    grid = (4, 4) if name == "swin" else (4, 8)
    images, kept = images_of(stride, *grid), []
    with model.get_submodule(layer).register_forward_hook(lambda module, inputs, result: kept.append(result)):
        found = Localizer(model, layer)(images)
    weight = model.get_submodule(classifier).weight[found.labels]
    features = channels_first(name, kept[0], grid)
    expected = in_unit_range(torch.einsum("bc,bchw->bhw", weight, features)).detach()
    assert expected.shape[1:] == grid
    torch.testing.assert_close(found.maps["cam"], expected, atol=1e-5, rtol=1e-5)
    if name != "tokens":  # timm's models need no layer
        torch.testing.assert_close(Localizer(model)(images).maps["cam"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_the_layer_makes_reaches_label_cam_without_a_copy(name, monkeypatch):
    model, layer, stride = make(name)
    made: list[Tensor] = []
    read: list[Tensor] = []
    label_cam = localizer.label_cam
    monkeypatch.setattr(
        localizer, "label_cam", lambda features, *rest: read.append(features) or label_cam(features, *rest)
    )
    with model.get_submodule(layer).register_forward_hook(lambda module, inputs, result: made.append(result)):
        Localizer(model, layer)(images_of(stride))
    [result], [features] = made, read
    expected = channels_first(name, result)
    assert torch.equal(features, expected)
    skipped = result.numel() // IMAGES - features.numel() // IMAGES
    assert features.data_ptr() == result.data_ptr() + skipped * result.element_size()
    channels, height, width = features.shape[1:]
    planar, last = (height * width, width, 1), (1, width * channels, channels)
    assert features.stride() == (result.stride(0), *(planar if name == "resnet" else last))


@pytest.mark.parametrize("name", MODELS)
def test_the_model_stays_as_it_was_and_is_recorded_behind_the_layer_only(name):
    model, layer, stride = make(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    recorded = {}

    def note(at: str) -> Callable[..., None]:
        return lambda module, inputs, result: recorded.update({at: result.requires_grad})

    leaves = {at: module for at, module in model.named_modules() if not list(module.children())}
    handles = [module.register_forward_hook(note(at)) for at, module in leaves.items()]
    found = Localizer(model, layer)(images_of(stride))
    for handle in handles:
        handle.remove()
    first, last = next(iter(recorded)), list(recorded)[-1]
    assert (recorded[first], recorded[last]) == (False, True)
    assert torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(tensor.requires_grad for tensor in (found.maps["cam"], found.logits, found.cams))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_localizes_where_nothing_is_to_be_recorded(mode):
    model, layer, stride = make("vit")
    expected = Localizer(model, layer)(images_of(stride)).maps["cam"]
    with mode():
        found = Localizer(model, layer)(images_of(stride)).maps["cam"]
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected)


def test_the_most_probable_classes_are_localized_in_turn_in_one_pass():
    model, layer, stride = make("resnet")
    images, passes = images_of(stride), []
    model.register_forward_hook(lambda *call: passes.append(call))
    ranked = Localizer(model, layer).localize_top(images, 3)
    assert len(passes) == 1
    assert torch.equal(torch.stack([each.labels for each in ranked], 1), ranked[0].logits.topk(3).indices)
    for each in ranked:
        assert torch.equal(each.maps["cam"], Localizer(model, layer)(images, each.labels).maps["cam"])
    with pytest.raises(ValueError, match="map is 'both'; accepted is 'cam'"):
        Localizer(model, layer).localize_top(images, 1, "both")


@pytest.mark.parametrize(("name", "classifier"), [("resnet", "fc"), ("vit", "head")])
def test_a_classifier_that_knows_nothing_has_a_constant_map(name, classifier):
    model, layer, stride = make(name)
    nn.init.zeros_(model.get_submodule(classifier).weight)
    assert not Localizer(model, layer)(images_of(stride)).maps["cam"].any()


class Lists(nn.Module):
    def forward(self, features: Tensor) -> list[Tensor]:
        return [features]


class Beside(nn.Module):
    """Logits of a first layer; a second one's result goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.idle = nn.Conv2d(3, CLASSES, 8), nn.Conv2d(3, 2, 8), nn.Conv2d(3, 2, 8)

    def forward(self, images: Tensor) -> Tensor:
        self.unused(images)
        return self.first(images).mean((2, 3))


def pooled(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (resnet().train(), "layer4", r"the model is in training mode.*; call model\.eval\(\) first"),
        (vit(), None, r"does not depend on the patches' tokens of forward_features.*such as 'blocks\.11\.norm1'"),
        (vit(), "norm", r"does not depend on the patches' tokens of layer 'norm', as the model reads its class token"),
        (pooled(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), "0", r"result of layer '0' is changed in place by a layer"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()),
            "0",
            r"the model makes float32 \[3, 4, 30, 30\]; logits \[3,K\]",
        ),
        (Beside(), "unused", "the logits do not depend on layer 'unused'; name a layer they are made from"),
        (Beside(), "idle", "the logits do not depend on layer 'idle'"),
        (pooled(nn.Conv2d(3, 4, 3)), "2", r"layer '2' makes float32 \[3, 4\]; accepted is a layer that makes one"),
        (pooled(nn.Conv2d(3, 4, 3), Lists()), "1", r"layer '1' makes a list; accepted is .* \[3,C,H,W\], \[3,H,W,C\]"),
        (
            Tokens(front=18),
            "norm",
            "makes 99 tokens, of which no grid with the proportions of 72x72 images can be made",
        ),
    ],
)
def test_what_cannot_be_localized_is_refused_and_leaves_no_hook(model, layer, message):
    if "training" not in message:
        model.eval()
    with pytest.raises(ValueError, match=message):
        Localizer(model, layer)(images_of(8, 9, 9) if isinstance(model, Tokens) else images_of(8))
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_layers_and_labels_that_there_are_not_are_refused():
    model, layer, stride = make("resnet")
    with pytest.raises(ValueError, match=r"layer is 'layer5'; accepted is a module of the model, or its name there\."):
        Localizer(model, "layer5")
    with pytest.raises(ValueError, match="layer is a Conv2d; accepted is a module of the model"):
        Localizer(model, nn.Conv2d(3, 3, 3))
    with pytest.raises(ValueError, match="no layer is named, and Tokens has no forward_features and forward_head"):
        Localizer(Tokens())
    with pytest.raises(IndexError, match="labels"):
        Localizer(model, layer)(images_of(stride), torch.full((IMAGES,), CLASSES))
    with pytest.raises(TypeError, match=r"labels has dtype torch\.int32"):
        Localizer(model, layer)(images_of(stride), torch.zeros(IMAGES, dtype=torch.int32))
