"""SPG: seeds by hand, the chain of networks, where its gradients go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast.methods import SPG, Learner
from iir_fast.methods.spg import seed_loss
from iir_fast.models import IIRNetwork, NetworkSpec

LABELS = torch.tensor([0, 1, 2, 0])


def network(hidden: int | None = 8) -> IIRNetwork:
    torch.manual_seed(0)
    return NetworkSpec("small_cnn", tuple("abc"), 32, hidden=hidden).build()


@pytest.mark.parametrize(
    ("guide", "foreground", "background"),
    [
        ([0.9, 0.71, 0.5, 0.04], [0, 1], [3]),
        ([0.7, 0.5, 0.3, 0.05], [0, 1], []),  # no pixel above 0.7: those above 0.7 * 0.7 are
        ([0.04, 0.03, 0.0, 0.0], [], [0, 1, 2, 3]),  # what the fallback takes for foreground is background
        ([0.0, 0.0, 0.0, 0.0], [], [0, 1, 2, 3]),
    ],
)
def test_seeds_by_hand(guide, foreground, background):
    logits = torch.tensor([0.5, -1.0, 2.0, 0.3], requires_grad=True)
    loss = seed_loss(logits.view(1, 1, 2, 2), torch.tensor(guide).view(1, 1, 2, 2), high=0.7, low=0.05)
    expected = F.softplus(-logits[foreground]).sum() + F.softplus(logits[background]).sum()
    torch.testing.assert_close(loss, expected / (len(foreground) + len(background)))
    loss.backward()
    ignored = sorted(set(range(4)) - {*foreground, *background})
    assert logits.grad[ignored].abs().sum() == 0
    assert (logits.grad[[*foreground, *background]] != 0).all()


def test_each_image_has_its_own_fallback_and_no_seeds_give_zero():
    guide = torch.tensor([[0.9, 0.3], [0.3, 0.1]]).view(2, 1, 1, 2)
    logits = torch.zeros(2, 1, 1, 2, requires_grad=True)
    seed_loss(logits, guide, high=0.7, low=0.0).backward()
    assert (logits.grad != 0).flatten().tolist() == [True, False, True, False]
    nothing = seed_loss(torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 2), torch.nan), 0.7, 0.05)
    assert nothing == 0


@pytest.mark.parametrize("hidden", [None, 8])
def test_the_chain(hidden):
    model = network(hidden).eval()
    learner, images = Learner(SPG(), model), torch.randn(4, 3, 32, 32)
    result, networks = SPG().loss(learner, images, LABELS), learner.networks
    features, out = model(images, LABELS)
    maps = []
    for cam in (out.cam_a, out.cam_b):
        low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
        maps.append((cam - low) / (high - low))
    mean = (maps[0] + maps[1]) / 2
    low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
    attention = ((mean - low) / (high - low)).unsqueeze(1)
    b1, b2 = (networks["b_top"](networks[name](features)) for name in ("b1", "b2"))
    read = torch.cat([branch(features) for branch in model.head.branches], dim=1) if hidden else features
    expected = F.cross_entropy(out.logits_a, LABELS) + F.cross_entropy(out.logits_b, LABELS)
    expected = expected + seed_loss(b2, attention, 0.7, 0.05) + seed_loss(b1, b2.sigmoid(), 0.5, 0.05)
    expected = expected + seed_loss(networks["c"](read), (b1.sigmoid() + b2.sigmoid()) / 2, 0.7, 0.1)
    torch.testing.assert_close(result.loss, expected)


def test_guidance_trains_its_networks_the_branches_and_the_shared_map():
    model = network()
    learner = Learner(SPG(), model)
    result = SPG().loss(learner, torch.randn(4, 3, 32, 32), LABELS)
    guidance = result.loss - F.cross_entropy(result.out.logits_a, LABELS) - F.cross_entropy(result.out.logits_b, LABELS)
    guidance.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in learner.networks.parameters())
    assert all(branch[0].weight.grad.abs().sum() > 1e-6 for branch in model.head.branches)
    assert model.backbone.net[0].weight.grad.abs().sum() > 1e-6
    assert model.head.weight.grad.abs().sum() < 1e-6, "seeds carry no gradient to the classifiers that made them"


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="SPG: high of B1 is 7"):
        SPG(high=(0.7, 7, 0.7))
