"""One gradient of the features for label CAMs and pooling, and one of the weights: the same as two, in one write."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from iir_fast import DualCAMHead, IIRLoss, backend, functional
from iir_fast.kernels import joint_label_cam, joint_logits, joint_masked_pool, native

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not native.all_kernels(), reason="installed without a C++ compiler"),
]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def inputs(dtype: torch.dtype = torch.float32, layout: str = "NCHW") -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(4, 33, 7, 7, generator=random).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    weights = torch.randn(2, 5, 33, generator=random)
    return features.requires_grad_(), weights.requires_grad_(), torch.arange(4) % 3


def step(features: Tensor, weights: Tensor, labels: Tensor, joint: bool, poolings: int = 1) -> Tensor:
    """Something that depends on all results, the masks on the CAMs."""
    if joint:
        (cams, pooled), handed_on = joint_label_cam(features, weights, labels)
    else:
        (cams, pooled), handed_on = functional.label_cam(features, weights, labels), features
    total = pooled.square().sum() + cams.square().mean()
    for number in range(poolings):
        masks = torch.sigmoid(cams * (number + 1) / 5)
        pool = joint_masked_pool if joint else functional.masked_pool
        foreground, background = pool(handed_on, masks)
        total = total + (foreground - background).square().sum()
    return total


@pytest.fixture
def writes(monkeypatch):
    """Counts gradients of the features that are written."""
    counted, products = [], native.products
    monkeypatch.setattr(native, "products", lambda *arguments: counted.append(1) or products(*arguments))
    return counted


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("poolings", [1, 2, 3])
def test_the_gradients_are_the_references(dtype, tolerance, layout, poolings, writes):
    features, weights, labels = inputs(dtype, layout)
    found = torch.autograd.grad(step(features, weights, labels, True, poolings), (features, weights))
    assert len(writes) == {1: 1, 2: 2, 3: 2}[poolings]
    exact = [each.detach().double().requires_grad_() for each in (features, weights)]
    with backend("reference"):
        expected = torch.autograd.grad(step(*exact, labels, False, poolings), exact)
    assert found[0].stride() == features.stride()
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max()


def test_what_else_becomes_of_the_features_is_added():
    features, weights, labels = inputs()

    def gradient(joint: bool) -> Tensor:
        if joint:
            (cams, _), handed_on = joint_label_cam(features, weights, labels)
        else:
            (cams, _), handed_on = functional.label_cam(features, weights, labels), features
        foreground, _ = joint_masked_pool(handed_on, torch.sigmoid(cams))
        return torch.autograd.grad(foreground.sum() + handed_on.sin().sum(), features)[0]

    assert torch.allclose(gradient(True), gradient(False), atol=1e-6)


def test_masks_that_do_not_depend_on_the_cams():
    features, weights, labels = inputs()
    masks = torch.rand(4, 2, 7, 7)
    _, handed_on = joint_label_cam(features, weights, labels)
    (found,) = torch.autograd.grad(joint_masked_pool(handed_on, masks).foreground.sum(), features)
    (expected,) = torch.autograd.grad(functional.masked_pool(features, masks).foreground.sum(), features)
    assert torch.allclose(found, expected, atol=1e-7)


def test_a_pass_that_wants_no_gradient_of_the_features_leaves_nothing_to_the_next():
    features, weights, labels = inputs()
    (cams, _), handed_on = joint_label_cam(features, weights, labels)
    masks = torch.sigmoid(cams).detach().requires_grad_()
    loss = joint_masked_pool(handed_on, masks).foreground.square().sum()
    torch.autograd.grad(loss, masks, retain_graph=True)
    (found,) = torch.autograd.grad(loss, features, retain_graph=True)
    (again,) = torch.autograd.grad(loss, features)
    (expected,) = torch.autograd.grad(functional.masked_pool(features, masks).foreground.square().sum(), features)
    assert torch.allclose(found, expected, atol=1e-7)
    assert torch.equal(found, again)


@pytest.mark.parametrize("frozen", ["features", "weights"])
def test_frozen_inputs_get_no_gradient(frozen):
    features, weights, labels = inputs()
    {"features": features, "weights": weights}[frozen].requires_grad_(False)
    step(features, weights, labels, True).backward()
    found = {"features": features.grad, "weights": weights.grad}
    assert found.pop(frozen) is None
    (gradient,) = found.values()
    for each in (features, weights):
        each.grad = None
    step(features, weights, labels, False).backward()
    (expected,) = (each.grad for each in (features, weights) if each.grad is not None)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_where_it_does_not_serve_the_features_are_handed_on_as_they_are():
    features, weights, labels = inputs()
    with torch.no_grad():
        assert joint_label_cam(features, weights, labels)[1] is features
    with backend("reference"):
        assert joint_label_cam(features, weights, labels)[1] is features
    doubles = features.detach().double().requires_grad_()
    assert joint_label_cam(doubles, weights, labels)[1] is doubles


def logits_and_cams(
    features: Tensor, weights: Tensor, biases: Tensor, labels: Tensor, joint: bool, times: int = 1
) -> tuple[Tensor, Tensor]:
    """Something that depends on the logits alone, and something that depends on the CAMs too."""
    if joint:
        (cams, pooled), _ = joint_label_cam(features, weights, labels)
    else:
        cams, pooled = functional.label_cam(features, weights, labels)
    of_logits = torch.zeros(())
    for number in range(times):
        if joint:
            logits = joint_logits(pooled, weights, biases)
        else:
            logits = F.linear(pooled.to(weights.dtype), weights.flatten(0, 1), biases.flatten())
        of_logits = of_logits + (logits.float() + number).square().sum()
    return of_logits, of_logits + cams.square().sum()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_logits_and_cams_make_one_gradient_of_the_weights(times, dtype, tolerance):
    features, weights, labels = inputs()
    leaves = features, weights.detach().to(dtype).requires_grad_(), torch.randn(2, 5).to(dtype).requires_grad_()
    _, total = logits_and_cams(*leaves, labels, True, times)
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    exact = tuple(each.detach().double().requires_grad_() for each in leaves)
    with backend("reference"):
        _, total = logits_and_cams(*exact, labels, False, times)
        expected = torch.autograd.grad(total, exact, allow_unused=True)
    for leaf, one, other in zip(leaves, found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == leaf.dtype
            assert (one.double() - other).abs().max() <= tolerance * other.abs().max()


def test_the_weights_get_their_gradient_from_the_logits_alone_and_again():
    features, weights, labels = inputs()
    biases = torch.randn(2, 5, requires_grad=True)
    of_logits, total = logits_and_cams(features, weights, biases, labels, True)
    found = [torch.autograd.grad(loss, weights, retain_graph=True)[0] for loss in (of_logits, total, of_logits)]
    of_logits, total = logits_and_cams(features, weights, biases, labels, False)
    expected = [torch.autograd.grad(loss, weights, retain_graph=True)[0] for loss in (of_logits, total)]
    assert torch.allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0], found[2])


def test_logits_of_other_weights_are_plain_ones():
    features, weights, labels = inputs()
    others, biases = torch.randn(2, 5, 33, requires_grad=True), torch.zeros(2, 5)
    (_, pooled), _ = joint_label_cam(features, weights, labels)
    logits = joint_logits(pooled, others, biases)
    logits.sum().backward()
    assert torch.allclose(others.grad, pooled.detach().sum(0).expand(2, 5, 33), atol=1e-5)
    assert weights.grad is None or not weights.grad.any()


def test_logits_under_autocast_are_in_its_dtype():
    features, weights, labels = inputs()
    biases = torch.zeros(2, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (_, pooled), _ = joint_label_cam(features, weights, labels)
        logits = joint_logits(pooled, weights, biases)
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert weights.grad.dtype == biases.grad.dtype == torch.float32
    expected = 2 * torch.outer(logits.detach().float().sum(0), torch.ones(33))
    assert torch.allclose(biases.grad.flatten(), expected[:, 0], rtol=2e-2)


def test_a_second_derivative_is_refused():
    features, weights, labels = inputs()
    (gradient,) = torch.autograd.grad(step(features, weights, labels, True), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_bad_input_is_named():
    features, weights, labels = inputs()
    with pytest.raises(IndexError, match="label_cam: labels"):
        joint_label_cam(features, weights, labels + 7)
    _, handed_on = joint_label_cam(features, weights, labels)
    with pytest.raises(ValueError, match="masked_pool: masks"):
        joint_masked_pool(handed_on, torch.rand(4, 2, 7, 6))


def test_head_and_loss_write_one_gradient(writes):
    head, loss_fn = DualCAMHead(33, 5, hidden=None), IIRLoss()
    features, _, labels = inputs()
    gradients = []
    for handed_on in (True, False):
        out = head(features, labels)
        loss = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
        given = out.features if handed_on else features
        loss = loss + loss_fn(out.cam_a, out.cam_b, given, labels, out.thresholds)
        gradients.append(torch.autograd.grad(loss, [features, *head.parameters()]))
        assert len(writes) == (1 if handed_on else 3)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_pass_through_as_real_ones_do(layout):
    strides: list[list[tuple[int, ...]]] = []
    for mode in (nullcontext(), FakeTensorMode()):
        with mode:
            features = torch.empty(4, 33, 7, 7).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
            head, labels = DualCAMHead(33, 5, hidden=None), torch.zeros(4, dtype=torch.int64)
            out = head(features, labels)
            loss = out.logits_a.sum() + IIRLoss()(out.cam_a, out.cam_b, out.features, labels, out.thresholds)
            strides.append([each.stride() for each in torch.autograd.grad(loss, [features, head.weight, head.bias])])
    assert strides[0] == strides[1]
