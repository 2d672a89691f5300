"""IIRNetwork and its checkpoints: the maps it makes, and the same ones after a round trip."""

from __future__ import annotations

import pytest
import torch

from iir_fast import IIRNetwork
from iir_fast.functional import evidence_map, masked_pool, regulate
from iir_fast.models import NetworkSpec, load_network, read_checkpoint, save_checkpoint

SPEC = NetworkSpec("small_cnn", ("cat", "dog", "cow"), image_size=32, hidden=8)
LABELS = torch.tensor([2, 0])


@pytest.fixture
def model() -> IIRNetwork:
    torch.manual_seed(0)
    model = SPEC.build().eval()
    model.prototypes.update(torch.rand(3, 2, model.backbone.channels), torch.arange(3))
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_maps_are_what_their_names_say(model, images):
    found = model.localize(images, LABELS, ("cam", "evidence", "both"))
    features, out = model(images, LABELS)
    regulated = regulate(out.cam_a, out.cam_b)
    background = masked_pool(features, regulated.masks).background
    with torch.no_grad():
        evidence = evidence_map(features, model.prototypes.evidence_vectors(background, LABELS))[:, 0]
    low, high = evidence.amin((1, 2), keepdim=True), evidence.amax((1, 2), keepdim=True)
    torch.testing.assert_close(found.cams, regulated.maps.detach())
    torch.testing.assert_close(found.maps["cam"], regulated.maps.mean(1).detach())
    torch.testing.assert_close(found.maps["evidence"], (evidence - low) / (high - low))
    torch.testing.assert_close(found.maps["both"], (found.maps["cam"] * found.maps["evidence"]).sqrt())
    torch.testing.assert_close(found.logits, (out.logits_a + out.logits_b).detach() / 2)
    assert torch.equal(found.labels, LABELS)


def test_one_image_at_a_time_gives_the_same_maps(model, images):
    together = model.localize(images, LABELS).maps["both"]
    alone = torch.cat([model.localize(images[i : i + 1], LABELS[i : i + 1]).maps["both"] for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_from_features_skips_the_backbone(model, images):
    features = model.backbone(images)
    of_features, of_images = model.localize(features, LABELS, from_features=True), model.localize(images, LABELS)
    assert torch.equal(of_features.maps["both"], of_images.maps["both"])


def test_without_labels_it_localizes_the_predicted_class(model, images):
    found = model.localize(images)
    assert torch.equal(found.labels, found.logits.argmax(1))


def test_an_unknown_kind_is_named(model, images):
    with pytest.raises(ValueError, match="maps holds 'heat'; accepted are both, evidence, cam"):
        model.localize(images, maps=("heat",))


def test_checkpoint_round_trip(model, images, tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", SPEC, model, {"step": 3})
    loaded, spec = load_network(tmp_path / "checkpoint.pt")
    assert spec == SPEC
    assert not loaded.training
    assert torch.equal(loaded.localize(images).maps["both"], model.localize(images).maps["both"])
    assert read_checkpoint(tmp_path / "checkpoint.pt")[2] == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_bad_checkpoints_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none\.pt does not exist"):
        load_network(tmp_path / "none.pt")
    whole = tmp_path / "whole.pt"
    save_checkpoint(whole, SPEC, model)
    (tmp_path / "half.pt").write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"half\.pt cannot be read"):
        load_network(tmp_path / "half.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt cannot be read"):
        load_network(tmp_path / "other.pt")
