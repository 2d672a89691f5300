"""ADL: masks by hand, where they act, and that nothing of it stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iir_fast.methods import ADL, Learner
from iir_fast.models import Backbone, NetworkSpec

SPEC = NetworkSpec("small_cnn", tuple("abc"), 32, hidden=8)


def test_drop_mask_and_importance_map_by_hand():
    features = torch.tensor([[[[1.0, 4.0], [10.0, 7.0]], [[1.0, 4.0], [10.0, 9.0]]]])  # attention 1, 4, 10, 8
    dropped = ADL(threshold=0.8).drop_or_weigh(features, torch.tensor(True))
    torch.testing.assert_close(dropped, features * torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    weighed = ADL(threshold=0.8).drop_or_weigh(features, torch.tensor(False))
    torch.testing.assert_close(weighed, features * torch.sigmoid(torch.tensor([[1.0, 4.0], [10.0, 8.0]])))


def test_each_image_has_its_own_maximum():
    features = torch.tensor([1.0, 2.0, 100.0, 200.0]).view(2, 1, 1, 2)
    dropped = ADL().drop_or_weigh(features, torch.tensor(True))
    assert dropped.flatten().tolist() == [1.0, 0.0, 100.0, 0.0]


@pytest.mark.parametrize("frozen", [False, True])
def test_the_last_three_stages_are_masked_while_it_lasts(frozen):
    torch.manual_seed(0)
    model, images, labels = SPEC.build(), torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    if frozen:
        model.backbone.requires_grad_(False).eval()
    layers = [model.backbone.net.get_submodule(name) for name in model.backbone.stages]
    assert len(layers) == 4
    with ADL(rate=1.0).attached(model.backbone):
        assert [len(layer._forward_hooks) for layer in layers] == [0, 1, 1, 1]
        masked = model.backbone(images)
    plain = model.backbone(images)
    assert (masked == 0).all(dim=1).flatten(1).any(dim=1).all(), "every image loses its most active pixels"
    assert not (plain == 0).all(dim=1).any()
    Learner(ADL(), model)(images, labels).loss.backward()
    assert all(not layer._forward_hooks for layer in layers)
    with pytest.raises(RuntimeError, match="inside"), ADL().attached(model.backbone):
        raise RuntimeError("inside")
    assert all(not layer._forward_hooks for layer in layers)


def test_the_rate_decides_between_the_two(monkeypatch):
    drops = []
    monkeypatch.setattr(ADL, "drop_or_weigh", lambda self, features, drop: drops.append(bool(drop)) or features)
    torch.manual_seed(0)
    backbone = SPEC.build().backbone.eval()
    method = ADL()
    for _ in range(100):
        with method.attached(backbone), torch.no_grad():
            backbone(torch.zeros(1, 3, 8, 8))
    assert len(drops) == 300
    assert sum(drops) / 300 == pytest.approx(0.75, abs=0.06)


def test_a_backbone_without_stages_is_refused():
    backbone = Backbone(nn.Identity(), "tokens", 3, 1, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="ADL: backbone 'tokens' has no known stages"), ADL().attached(backbone):
        pass


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="ADL: threshold is 2"):
        ADL(threshold=2)
