"""DualCAMHead: the usual CAM head's numbers without its class maps, prediction, learned thresholds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from iir_fast import DualCAMHead

LABELS = torch.tensor([2, 0, 1, 2])


@pytest.mark.parametrize("class_mean", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("hidden", [None, 6])
def test_equals_two_usual_cam_heads(hidden, class_mean):
    head = DualCAMHead(5, 3, hidden=hidden, threshold="mean", class_mean=class_mean).double().eval()
    weight = head.weight - (1 - class_mean) * (head.weight[:, :1] + head.weight[:, 1:2] + head.weight[:, 2:]) / 3
    features = torch.randn(4, 5, 6, 7, dtype=torch.float64)
    out = head(features, LABELS)
    for x, (logits, cam) in enumerate(((out.logits_a, out.cam_a), (out.logits_b, out.cam_b))):
        branch = features
        if hidden:
            convolution, norm, _ = head.branches[x]
            branch = F.conv2d(features, convolution.weight, padding=1)
            branch = F.batch_norm(branch, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
        class_maps = F.conv2d(branch, weight[x][:, :, None, None])
        torch.testing.assert_close(cam, class_maps[torch.arange(4), LABELS])
        torch.testing.assert_close(logits, F.linear(branch.mean(dim=(2, 3)), head.weight[x], head.bias[x]))
    torch.testing.assert_close(out.thresholds, out.regulated.maps.mean(dim=(2, 3)))
    assert out.labels is LABELS
    torch.testing.assert_close(head.class_logits(out), (out.logits_a + out.logits_b) / 2)
    torch.testing.assert_close(head.joint_map(out.regulated.maps), sum(out.regulated.maps.unbind(1)) / 2)


@pytest.mark.parametrize("hidden", [None, 6])
def test_without_labels_it_takes_the_class_of_the_largest_summed_logits(hidden):
    head = DualCAMHead(5, 3, hidden=hidden).eval()
    features = torch.randn(8, 5, 6, 7)
    out = head(features)
    assert torch.equal(out.labels, (out.logits_a + out.logits_b).argmax(dim=1))
    torch.testing.assert_close(out.cam_b, head(features, out.labels).cam_b)
    if hidden is None:
        low = features.bfloat16()
        assert torch.equal(head(low).labels, head(low.float()).labels)


def test_weights_and_biases_start_as_a_linear_layers():
    head = DualCAMHead(16, 1000, hidden=64)
    for each in (head.weight, head.bias):
        assert -1 / 8 <= each.min() < -0.12
        assert 0.12 < each.max() <= 1 / 8
    assert DualCAMHead(5, 3).hidden == 512


def test_certainty_of_few_classes_in_low_precision():
    logits = torch.tensor([[0.5, -1.25], [3.0, 1.0]], dtype=torch.bfloat16)
    out = DualCAMHead(5, 2, hidden=None)(torch.rand(2, 5, 3, 3), torch.tensor([0, 1]))
    certainty = out._replace(logits_a=logits, logits_b=logits).certainty
    torch.testing.assert_close(certainty, 2 * torch.sigmoid(torch.tensor([1.75, -2.0])) - 1)
    assert DualCAMHead(1, 1, hidden=1)(torch.rand(2, 1, 3, 3)).certainty.tolist() == [0, 0]


def test_the_two_classifiers_start_apart():
    head = DualCAMHead(5, 3)
    assert not torch.equal(head.weight[0], head.weight[1])
    assert not torch.equal(head.bias[0], head.bias[1])
    assert not torch.equal(head.branches[0][0].weight, head.branches[1][0].weight)


def test_learned_thresholds_start_as_the_mean_and_end_at_half_of_the_range():
    head = DualCAMHead(5, 3, hidden=6).eval()
    features = torch.rand(4, 5, 6, 7)
    out = head(features, LABELS)
    low, high = out.cam_a.amin((1, 2), keepdim=True), out.cam_a.amax((1, 2), keepdim=True)
    torch.testing.assert_close(out.thresholds[:, 0], ((out.cam_a - low) / (high - low)).mean((1, 2)))
    out.thresholds.sum().backward()
    assert head.threshold_weight.grad.abs().sum() > 0
    with torch.no_grad():
        head.threshold_bias += 1.0
    moved = head(features, LABELS).thresholds
    assert ((moved - 0.5).abs() < (out.thresholds - 0.5).abs()).all(), "nearer to half of the map's range"
    with torch.no_grad():
        head.threshold_bias += 100.0
    assert torch.equal(head(features, LABELS).thresholds, torch.full((4, 2), 0.5)), "and never beyond it"


def test_fixed_thresholds_are_one_half():
    out = DualCAMHead(5, 3, hidden=6, threshold="fixed")(torch.rand(4, 5, 6, 7), LABELS)
    assert out.thresholds.tolist() == [[0.5, 0.5]] * 4


@pytest.mark.parametrize("hidden", [None, 6])
def test_the_maps_that_the_classifiers_read_are_handed_on(hidden):
    head = DualCAMHead(5, 3, hidden=hidden).eval()
    features = torch.rand(4, 5, 6, 7)
    maps = head(features, LABELS).branch_maps
    expected = [branch(features) for branch in head.branches] or [features]
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


def test_state_dict_round_trip():
    one, other = DualCAMHead(5, 3, threshold="learned").eval(), DualCAMHead(5, 3, threshold="learned").eval()
    other.load_state_dict(one.state_dict())
    features = torch.randn(2, 5, 4, 4)
    assert torch.equal(one(features).logits_a, other(features).logits_a)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 3), "in_channels is 0"),
        ((5, 0), "num_classes is 0"),
        ((5, 3, 0), "hidden is 0"),
        ((5, 3, 4, "free"), "threshold is 'free'; accepted are learned, mean, fixed.$"),
        ((5, 3, 4, "learned", 1.5), r"class_mean is 1.5; accepted is a number in \[0,1\]"),
    ],
)
def test_bad_options_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        DualCAMHead(*arguments)


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("shape", [(4, 9, 6, 7), (4, 6, 7, 5), (4, 42, 5)], ids=["channels", "NHWC", "tokens"])
def test_a_map_of_another_shape_is_named_with_the_channels_that_the_head_reads(hidden, shape):
    head = DualCAMHead(5, 3, hidden=hidden)
    given = ", ".join(map(str, shape))
    words = rf"^DualCAMHead: features has shape \[{given}\]; accepted is \[B,5,H,W\], channels in front of pixels"
    with pytest.raises(ValueError, match=words):
        head(torch.randn(shape), LABELS)
