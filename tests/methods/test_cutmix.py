"""CutMix: the box's area, mixed images, mixed labels, and whose prototype a mixed image moves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast.methods import CutMix, Learner
from iir_fast.models import NetworkSpec

SPEC = NetworkSpec("small_cnn", tuple("abcdef"), 32, hidden=8)


@pytest.mark.parametrize(("share", "area"), [(0.75, 0.25), (1.0, 0.0)])
def test_an_unclipped_box_leaves_the_drawn_share(share, area, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(share))
    torch.manual_seed(0)
    boxes = torch.stack([CutMix().draw_box(32, 64) for _ in range(200)])
    assert boxes.float().mean((1, 2)).max().item() == area
    if area:
        assert boxes.any(2).sum(1).max() == 16, "half of the 32 rows"
        assert boxes.any(1).sum(1).max() == 32, "half of the 64 columns"
        assert boxes.any(0).all(), "anywhere"


def test_shares_follow_beta_and_rate():
    torch.manual_seed(0)
    assert not any(CutMix(rate=0.0).draw_box(8, 8).any() for _ in range(50))
    mixed = torch.tensor([bool(CutMix(rate=0.3).draw_box(64, 64).any()) for _ in range(500)])
    assert mixed.float().mean().item() == pytest.approx(0.3, abs=0.06)
    near_half = torch.stack([CutMix(beta=100.0).draw_box(64, 64).float().mean() for _ in range(200)])
    assert near_half.max().item() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(("seed", "larger"), [(0, "own"), (4, "own"), (42, "pasted"), (57, "pasted")])
def test_labels_are_mixed_by_area_and_the_larger_part_names_the_descriptor(seed, larger):
    torch.manual_seed(0)
    model, labels = SPEC.build(), torch.arange(6)
    images = torch.arange(1.0, 7).view(6, 1, 1, 1).expand(6, 3, 32, 32)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(seed)
    result = CutMix().loss(Learner(CutMix(), model), images, labels)
    (mixed,) = seen
    expected = torch.tensor(0.0)
    for i, image in enumerate(mixed):
        values = image[0].unique().long() - 1
        own = (image[0] == i + 1).float().mean()
        other = next((value for value in values.tolist() if value != i), i)
        assert len(values) <= 2
        assert torch.equal(image[0], image[1])
        for logits in (result.out.logits_a[i], result.out.logits_b[i]):
            for label, share in ((i, own), (other, 1 - own)):
                expected = expected + share * F.cross_entropy(logits, torch.tensor(label)) / 6
        assert result.out.labels[i] == (i if larger == "own" else other)
        assert (own > 0.5) == (larger == "own") or other == i
    torch.testing.assert_close(result.loss, expected)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="CutMix: beta is 0; accepted is a number above 0"):
        CutMix(beta=0)
    with pytest.raises(ValueError, match="CutMix: rate is -1"):
        CutMix(rate=-1)
