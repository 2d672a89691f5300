"""Weight files as people have them: read whatever wraps the weights, and no code of theirs runs."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from iir_fast.models import NetworkSpec, create_backbone, save_checkpoint
from iir_fast.models.pretrained import read_weights

NAME = "test_resnet"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The state dict of a small timm model."""
    torch.manual_seed(0)
    return timm.create_model(NAME).state_dict()


def began(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def zeros(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


WRAPPED: dict[str, Any] = {
    "imagenet.pth.tar": lambda own: {"state_dict": own, "best_acc1": np.float64(3.5), "epoch": np.int64(9)},
    "arrays.pt": lambda own: {"model": own, "lr": np.arange(3.0), "log": defaultdict(list, loss=[0.5])},
    "lightning.ckpt": lambda own: {
        "state_dict": {**began(own, "model."), "criterion.weight": torch.ones(3)},
        "hyper_parameters": argparse.Namespace(lr=0.1, root=Path("data")),
    },
    "hub.bin": lambda own: own,
    "steps.pth": lambda own: {"model_state_dict": began(own, "module.backbone."), "optimizer": {"state": {}}},
    "kuangliu.PTH": lambda own: {"net": began(own, "module."), "acc": 95.0},
    "averaged.pth": lambda own: {"model": zeros(own), "model_ema": own, "ema": 0.999},
    "timm.pth.tar": lambda own: {"state_dict": zeros(own), "state_dict_ema": began(own, "module.")},
    "averaged_module.pth": lambda own: {"model": zeros(own), "ema": {"module": began(own, "module."), "updates": 9}},
    "swa.pth": lambda own: {"n_averaged": torch.tensor(5), **began(own, "module.")},
    "compiled.pt": lambda own: began(own, "_orig_mod."),
    "nested.pt": lambda own: {"model": {"state_dict": own}},
    "one_number.pt": lambda own: {**own, "best": np.float32(1)},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "from before torch 1.6"])
@pytest.mark.parametrize("file", WRAPPED)
def test_weights_are_found_in_what_wraps_them(file: str, zipped: bool, tensors: dict[str, Tensor], tmp_path: Path):
    torch.save(WRAPPED[file](tensors), tmp_path / file, _use_new_zipfile_serialization=zipped)
    found = read_weights(str(tmp_path / file), NAME)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_safetensors_have_prefixes_too(tensors: dict[str, Tensor], tmp_path: Path):
    save_file(began(tensors, "model.backbone."), tmp_path / "a.safetensors")
    found = create_backbone(NAME, str(tmp_path / "a.safetensors")).net.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "small_cnn"])
def test_a_checkpoint_of_this_package_holds_weights_for_the_next_run(name: str, tmp_path: Path):
    spec = NetworkSpec(name, ("cat", "dog"), image_size=32, hidden=8)
    network = spec.build()
    save_checkpoint(tmp_path / "mine.pt", spec, network)
    loaded = spec.build(str(tmp_path / "mine.pt")).backbone
    assert all(map(torch.equal, network.backbone.state_dict().values(), loaded.state_dict().values()))


class Payload:
    """What a stranger's file may hold."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_runs(zipped: bool, tensors: dict[str, Tensor], tmp_path: Path):
    touched = tmp_path / "touched"
    file = str(tmp_path / "a.pt")
    for payload in (Payload(eval, f"open({str(touched)!r}, 'w')"), Payload(copyfile, __file__, touched)):
        torch.save({"model": tensors, "extra": payload}, file, _use_new_zipfile_serialization=zipped)
        assert read_weights(file, NAME).keys() >= tensors.keys()
    torch.save({"model": tensors, "extra": Payload(os.system, f"touch {touched}")}, file)
    with pytest.raises(ValueError, match=r"a\.pt' cannot be read as a state dict: .*posix.system whose .* blocked"):
        read_weights(file, NAME)
    assert not touched.exists()


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path):
    file = str(tmp_path / "a.pt")
    for content, words in [
        ({"epoch": 3, "args": argparse.Namespace()}, "a dict of 'epoch', 'args'"),
        (nn.Linear(2, 2), "no dict"),
        ({"model": nn.Linear(2, 2)}, "a dict of 'model'"),
        ([torch.ones(2)], "no dict"),
    ]:
        torch.save(content, file)
        with pytest.raises(ValueError, match=f"something else than a state dict: {words}; accepted is a dict of named"):
            read_weights(file, NAME)
    looped: dict[str, Any] = {}
    looped["model"] = looped
    torch.save(looped, file)
    with pytest.raises(ValueError, match=r"a\.pt' cannot be read"):
        read_weights(file, NAME)


@pytest.mark.parametrize(
    ("given", "wanted", "layer"),
    [
        ("resnet34", "resnet18", "layer1.2.conv1.weight"),
        ("densenet169", "densenet121", "features.denseblock3.denselayer25.norm1.weight"),
        ("vit_small_patch16_224", "vit_small_patch16_224.6", "blocks.6.norm1.weight"),
    ],
)
def test_a_deeper_network_is_refused(
    given: str, wanted: str, layer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    create_model = timm.create_model
    with torch.device("meta"):
        state = create_model(given).state_dict()
    torch.save({name: torch.zeros(1) for name in state}, tmp_path / "deep.pth")
    if wanted.endswith(".6"):
        wanted = given
        monkeypatch.setattr(timm, "create_model", lambda name: create_model(name, depth=6))
    with pytest.raises(ValueError, match=f"'{layer}', a layer that it does not have; .* perhaps a deeper one"):
        read_weights(str(tmp_path / "deep.pth"), wanted)


def test_other_heads_and_parts_are_left_out(tensors: dict[str, Tensor], tmp_path: Path):
    others = {"fc.1.weight": 1, "fc.2.weight": 1, "head.fc.weight": 1, "layer1.0.attn.mask": 1, "bn2.weight": 1}
    torch.save({**tensors, **{name: torch.ones(size) for name, size in others.items()}}, tmp_path / "a.pt")
    assert read_weights(str(tmp_path / "a.pt"), NAME).keys() >= tensors.keys()


def test_two_tensors_for_one_place_are_refused(tensors: dict[str, Tensor], tmp_path: Path):
    torch.save({**tensors, **began(tensors, "module.")}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt' hold two tensors for 'conv1\.0\.weight'; one is accepted"):
        read_weights(str(tmp_path / "a.pt"), NAME)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_broken_weights_are_refused(value: float, tensors: dict[str, Tensor], tmp_path: Path):
    broken = {name: tensor.clone() for name, tensor in tensors.items()}
    broken["bn1.bias"][3] = value
    torch.save(broken, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt' are broken: 'bn1\.bias' holds NaN or infinities"):
        create_backbone(NAME, str(tmp_path / "a.pt"))


@pytest.mark.parametrize("odd", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")], ids=["sparse", "meta"])
def test_tensors_that_no_weights_are_are_refused(odd: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    name, tensor = next(iter(tensors.items()))
    torch.save({**tensors, name: odd(tensor)}, file := tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"is sparse, quantized or without memory$"):
        read_weights(str(file), NAME)
