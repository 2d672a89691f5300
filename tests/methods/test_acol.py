"""ACoL: what classifier B sees, who decides the class, how the two maps become one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast.methods import ACoL, Learner
from iir_fast.models import ErasingHead, NetworkSpec, load_network, save_checkpoint

LABELS = torch.tensor([2, 0, 1, 2])


def normalized(cam: torch.Tensor) -> torch.Tensor:
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    return (cam - low) / (high - low)


@pytest.mark.parametrize("hidden", [None, 6])
def test_b_reads_the_map_without_what_a_is_sure_of(hidden):
    torch.manual_seed(0)
    head = ErasingHead(5, 3, hidden, "learned", erase=0.6).double().eval()
    features = torch.randn(4, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    out = head(features, LABELS)

    map_a = head.branches[0](features) if hidden else features
    cam_a = torch.einsum("bchw,bc->bhw", map_a, head.weight[0][LABELS])
    erased = normalized(cam_a) >= 0.6
    left = features.masked_fill(erased.unsqueeze(1), 0.0)
    map_b = head.branches[1](left) if hidden else left
    torch.testing.assert_close(out.cam_a, cam_a)
    torch.testing.assert_close(out.cam_b, torch.einsum("bchw,bc->bhw", map_b, head.weight[1][LABELS]))
    torch.testing.assert_close(out.logits_b, F.linear(map_b.mean((2, 3)), head.weight[1], head.bias[1]))

    out.logits_b.sum().backward()
    support = erased.unsqueeze(1).expand_as(features)
    assert support.any()
    assert not support.all()
    assert (features.grad[support] == 0).all()
    assert (features.grad[~support] != 0).any()
    assert head.weight.grad[0].abs().sum() == 0, "A's map erases, but is not trained to"


def test_a_pixel_right_at_the_threshold_is_erased():
    features = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    for erase, left in ((1.0, [0.0, 1.0, 0.0]), (0.5, [0.0, 0.0, 0.0])):
        head = ErasingHead(1, 1, None, "mean", erase)
        torch.nn.init.ones_(head.weight)
        (_, map_b), _ = head.read(features, torch.tensor([0]))
        assert map_b.flatten().tolist() == left


@pytest.mark.parametrize("hidden", [None, 6])
def test_a_alone_decides_the_class(hidden):
    torch.manual_seed(0)
    head = ErasingHead(5, 3, hidden, "learned", erase=0.6).eval()
    torch.nn.init.zeros_(head.bias)  # else it outweighs what the samples differ in
    features = torch.randn(16, 5, 6, 7)
    out = head(features)
    assert torch.equal(out.labels, out.logits_a.argmax(1))
    assert not torch.equal(out.labels, (out.logits_a + out.logits_b).argmax(1))
    assert head.class_logits(out) is out.logits_a
    torch.testing.assert_close(out.cam_b, head(features, out.labels).cam_b)


def test_the_localization_map_is_the_larger_of_the_two_after_a_round_trip_too(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec("small_cnn", tuple("abc"), 32, hidden=8, erase=0.6)
    model, images = spec.build().eval(), torch.randn(4, 3, 32, 32)
    found = model.localize(images, LABELS, ("cam",))
    _, out = model(images, LABELS)
    larger = torch.maximum(normalized(out.cam_a), normalized(out.cam_b)).detach()
    torch.testing.assert_close(found.maps["cam"], larger)
    torch.testing.assert_close(found.logits, out.logits_a.detach())
    save_checkpoint(tmp_path / "checkpoint.pt", spec, model)
    loaded, loaded_spec = load_network(tmp_path / "checkpoint.pt")
    assert loaded_spec == spec
    assert torch.equal(loaded.localize(images, LABELS, ("cam",)).maps["cam"], found.maps["cam"])


def test_only_an_erasing_localizer_is_trained():
    model = NetworkSpec("small_cnn", tuple("abc"), 32, hidden=8).build()
    with pytest.raises(ValueError, match="ACoL: the network erases nothing"):
        Learner(ACoL(), model)(torch.randn(4, 3, 32, 32), LABELS)
    with pytest.raises(ValueError, match=r"ErasingHead: erase is 0\.0; accepted is a number in \(0,1\]"):
        ErasingHead(5, 3, None, "learned", erase=0.0)
    with pytest.raises(ValueError, match=r"ACoL: threshold is 1\.5; accepted is a number in \(0,1\]"):
        ACoL(threshold=1.5)
