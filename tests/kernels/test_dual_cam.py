"""dual_cam is what its operators are one by one, and one ordinary step of autograd: nothing happens behind its back."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from iir_fast import DualCAMHead, IIRLoss, backend, functional
from iir_fast.kernels import native

BATCH, CLASSES, CHANNELS, SIDE = 4, 5, 17, 6


def head_and_inputs(
    hidden: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[DualCAMHead, Tensor, Tensor]:
    """A head with thresholds that differ from the means."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = DualCAMHead(CHANNELS, CLASSES, hidden)
        torch.nn.init.normal_(head.threshold_weight, std=0.3)
        torch.nn.init.normal_(head.threshold_bias)
        features = torch.randn(BATCH, CHANNELS, SIDE, SIDE)
    return head.to(dtype), features.to(dtype).requires_grad_(), torch.tensor([0, 2, 0, 2])


def step(out, labels: Tensor) -> Tensor:
    classification = F.cross_entropy(out.logits_a, labels) + F.cross_entropy(out.logits_b, labels)
    return classification + IIRLoss()(out)


def reference_gradients(hidden: int | None, extra: bool = False) -> list[Tensor]:
    """Of features and parameters, in float64."""
    head, features, labels = head_and_inputs(hidden, torch.float64)
    with backend("reference"):
        out = head(features, labels)
        loss = step(out, labels) + (out.features.square().mean() if extra else 0)
        return list(torch.autograd.grad(loss, [features, *head.parameters()]))


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for position, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max(), position


def test_plain_cams_keep_no_rows_for_the_backward_pass():
    """With all of the mean the logits' weights are the CAMs', too."""

    def saved(class_mean: float) -> int:
        head, features, labels = head_and_inputs()
        head.class_mean, sizes = class_mean, list[int]()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: sizes.append(each.numel()) or each, lambda each: each
        ):
            head(features, labels)
        return sum(sizes)

    with backend("native"):
        assert saved(0.75) - saved(1.0) == 2 * BATCH * CHANNELS + BATCH


@pytest.mark.parametrize("hidden", [None, 6])
class TestOneStepOfAutograd:
    def test_a_second_use_of_the_features_is_added(self, hidden):
        head, features, labels = head_and_inputs(hidden)
        out = head(features, labels)
        loss = step(out, labels) + out.features.square().mean()
        assert_same(list(torch.autograd.grad(loss, [features, *head.parameters()])), reference_gradients(hidden, True))

    def test_the_heads_own_features_have_the_gradient(self, hidden):
        head, features, labels = head_and_inputs(hidden)
        out = head(features, labels)
        (found,) = torch.autograd.grad(step(out, labels) + out.features.square().mean(), out.features)
        assert_same([found], reference_gradients(hidden, True)[:1])

    def test_retain_grad_and_hooks_see_it(self, hidden):
        head, leaf, labels = head_and_inputs(hidden)
        features = leaf * 1
        out = head(features, labels)
        out.features.retain_grad()
        seen = []
        out.features.register_hook(seen.append)
        step(out, labels).backward()
        expected = reference_gradients(hidden)[0]
        assert_same([out.features.grad, *seen, leaf.grad], [expected] * 3)

    def test_the_loss_alone(self, hidden):
        head, features, labels = head_and_inputs(hidden)
        out = head(features, labels)
        (found,) = torch.autograd.grad(IIRLoss()(out), out.features, allow_unused=True)
        exact, doubles, _ = head_and_inputs(hidden, torch.float64)
        with backend("reference"):
            (expected,) = torch.autograd.grad(IIRLoss()(exact(doubles, labels)), doubles)
        assert_same([found], [expected])

    def test_backward_twice_over_a_retained_graph(self, hidden):
        head, features, labels = head_and_inputs(hidden)
        loss = step(head(features, labels), labels)
        inputs = [features, *head.parameters()]
        first, second = (torch.autograd.grad(loss, inputs, retain_graph=True) for _ in range(2))
        assert all(map(torch.equal, first, second))
        assert_same(list(first), reference_gradients(hidden))

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpoints(self, hidden, reentrant):
        head, features, labels = head_and_inputs(hidden)
        head.eval()
        exact, doubles, _ = head_and_inputs(hidden, torch.float64)
        loss = checkpoint(lambda maps: step(head(maps, labels), labels), features, use_reentrant=reentrant)
        loss.backward()
        with backend("reference"):
            expected = torch.autograd.grad(step(exact.eval()(doubles, labels), labels), [doubles, *exact.parameters()])
        assert_same([features.grad, *(each.grad for each in head.parameters())], list(expected))

    def test_changing_the_features_in_place_afterwards_raises(self, hidden):
        head, leaf, labels = head_and_inputs(hidden)
        features = leaf * 1
        loss = step(head(features, labels), labels)
        features.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_autocast_lowers_logits_alone(self, hidden, device):
        head, features, labels = head_and_inputs(hidden)
        if hidden is not None:
            pytest.skip("convolutions are lowered, and with them what the classifiers read")
        full = head(features, labels)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            out = head(features, labels)
            loss = step(out, labels)
        assert out.logits_a.dtype == torch.bfloat16
        assert (out.logits_a - full.logits_a).abs().max() < 2e-2
        for one, other in zip(
            (out.cam_a, *out.regulated, *out.descriptors), (full.cam_a, *full.regulated, *full.descriptors), strict=True
        ):
            assert torch.equal(one, other)
        assert_same(list(torch.autograd.grad(loss, [features, *head.parameters()])), reference_gradients(hidden), 2e-2)

    @pytest.mark.parametrize("frozen", ["features", "head"])
    def test_frozen_inputs_get_no_gradient(self, hidden, frozen):
        head, features, labels = head_and_inputs(hidden)
        (features if frozen == "features" else head).requires_grad_(False)
        step(head(features, labels), labels).backward()
        expected = reference_gradients(hidden)
        if frozen == "features":
            assert features.grad is None
            assert_same([each.grad for each in head.parameters()], expected[1:])
        else:
            assert all(each.grad is None for each in head.parameters())
            assert_same([features.grad], expected[:1])


def _exact_and_found(arguments: list[Tensor], **options) -> list[list[Tensor]]:
    """All results, and gradients of all floating arguments, of the reference in float64 and of what is under test."""
    results = []
    for dtype, name in ((torch.float64, "reference"), (None, None)):
        leaves = [each.detach().to(dtype or each.dtype).requires_grad_() for each in arguments]
        features, weights, biases, *maps = leaves
        with backend(name) if name else nullcontext():
            labels = torch.arange(len(features)) % weights.shape[1]
            given = {"maps": tuple(maps)} if maps else {}
            found = tree_leaves(functional.dual_cam(features, weights, biases, labels, **given, **options))
            incoming = [torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view_as(each) for each in found]
            gradients = torch.autograd.grad(found, leaves, incoming)
        results.append([*(each.detach() for each in found), *gradients])
    return results


@pytest.mark.parametrize(
    ("dtypes", "formats"),
    [
        ((torch.float32, torch.float32), (torch.contiguous_format, torch.channels_last)),
        ((torch.bfloat16, torch.float32), (torch.contiguous_format, torch.contiguous_format)),
    ],
    ids=["layout", "dtype"],
)
def test_maps_that_differ(dtypes, formats, random):
    maps = [
        random(3, 6, 5, 4, dtype=dtype, seed=seed).contiguous(memory_format=form)
        for seed, (dtype, form) in enumerate(zip(dtypes, formats, strict=True))
    ]
    single = partial(random, dtype=torch.float32)
    features, weights, biases = single(3, 7, 5, 4, seed=2), single(2, 4, 6, seed=3), single(2, 4, seed=4)
    expected, found = _exact_and_found([features, weights, biases, *maps])
    assert [each.dtype for each in found[-2:]] == list(dtypes)
    assert all(one.stride() == each.stride() for one, each in zip(found[-2:], maps, strict=True))
    for position, (one, other) in enumerate(zip(found, expected, strict=True)):
        tolerance = 1e-2 if one.dtype == torch.bfloat16 else 1e-5
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max(), position
    # Autograd would hide a gradient in another dtype.
    given = features, *maps, weights, biases, torch.tensor([0, 3, 3]), None, None, None, torch.float64, 0.5
    outputs = torch.ops.iir_fast.dual_cam(*given)
    saved = (outputs[number] for number in (1, 3, *range(6, 12)))
    gradients = torch.ops.iir_fast.dual_cam_backward(*outputs[:8], *given, *saved, True, True, True)
    assert [(each.dtype, each.stride()) for each in gradients[1:3]] == [(each.dtype, each.stride()) for each in maps]


@pytest.mark.parametrize("held", [16, 1024, None])
def test_sums_of_parts(held, random, implementation, monkeypatch):
    """CAMs and gradients of masks in parts, of more pixels than a program of `regulate` keeps, and of fewer; None: all
    parts made by one program."""
    if implementation == "triton" and held is not None:
        room = import_module("iir_fast.kernels.regulate.triton")
        for name in ("MAX_HELD", "LOOP_BLOCK"):
            monkeypatch.setattr(room, name, held)
        monkeypatch.setattr(import_module("iir_fast.kernels.dual_cam.triton"), "LARGEST", 0)
    features = random(1, 264, 5, 6, seed=1).contiguous(memory_format=torch.channels_last)
    arguments = [features, random(2, 3, 264, seed=2), random(2, 3, seed=3)]
    offsets = {"offset_weights": random(2, 264, seed=4) / 16, "offset_biases": random(2, seed=5)}
    expected, found = _exact_and_found(arguments, **offsets)
    assert_same(found, expected)


@pytest.mark.native
@pytest.mark.skipif(not native.all_kernels(), reason="installed without a C++ compiler")
def test_parts_that_nothing_depends_on_are_not_made(monkeypatch):
    """Classification alone reads the map once in its backward pass; the loss reads it for the masks' gradient, too."""
    reads, sums = [], native.sums
    monkeypatch.setattr(native, "sums", lambda *arguments: reads.append(1) or sums(*arguments))
    head, features, labels = head_and_inputs()
    arguments = features, head.weight
    out = head(features, labels)
    reads.clear()
    found = torch.autograd.grad(F.cross_entropy(out.logits_a, labels), arguments, retain_graph=True)
    assert len(reads) == 1
    torch.autograd.grad(step(out, labels), arguments)
    assert len(reads) == 1 + 2
    logits = features.mean((2, 3)) @ head.weight[0].T + head.bias[0]
    assert_same(list(found), list(torch.autograd.grad(F.cross_entropy(logits, labels), arguments)))


@pytest.mark.native
@pytest.mark.skipif(not native.all_kernels(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_gradient_of_the_features_is_written(monkeypatch, layout):
    counted, products = [], native.products
    monkeypatch.setattr(native, "products", lambda *arguments: counted.append(1) or products(*arguments))
    head, features, labels = head_and_inputs()
    features = features.detach().contiguous(memory_format=layout).requires_grad_()
    found = torch.autograd.grad(step(head(features, labels), labels), [features, *head.parameters()])
    assert len(counted) == 1
    assert found[0].stride() == features.stride()
    assert_same(list(found), reference_gradients(None))


WRONG = [
    ({"weights": torch.zeros(3, 5, 17)}, ValueError, r"weights has shape \[3, 5, 17\]; accepted is \[2,K,17\]"),
    ({"biases": torch.zeros(2, 4)}, ValueError, r"biases has shape \[2, 4\]; accepted is \[2,5\]"),
    ({"labels": torch.tensor([0, 5, 0, 0])}, IndexError, "labels holds values from 0 to 5"),
    ({"offset_weights": torch.zeros(2, 17)}, ValueError, "one of offset_weights and offset_biases is missing"),
    (
        {"offset_weights": torch.zeros(2, 17), "offset_biases": torch.zeros(2), "thresholds": torch.zeros(4, 2)},
        ValueError,
        "thresholds and offset_weights are both given",
    ),
    ({"thresholds": torch.zeros(4, 3)}, ValueError, r"thresholds has shape \[4, 3\]; accepted is \[4,2\]"),
    (
        {"maps": (torch.zeros(4, 17, 6, 6), torch.zeros(4, 17, 6, 5))},
        ValueError,
        r"the second of maps has shape \[4, 17, 6, 5\]; accepted is \[4,D,6,6\]",
    ),
    ({"features": torch.zeros(4, 17, 6)}, ValueError, r"features has shape \[4, 17, 6\]; accepted is \[B,C,H,W\]"),
    ({"features": torch.zeros(4, 17, 6, 6).int()}, TypeError, "features has dtype torch.int32"),
]


@pytest.mark.parametrize(
    ("changes", "error", "message"), WRONG, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
def test_what_is_not_accepted(changes, error, message):
    arguments = {
        "features": torch.zeros(4, 17, 6, 6),
        "weights": torch.zeros(2, 5, 17),
        "biases": torch.zeros(2, 5),
        "labels": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(error, match=message):
        functional.dual_cam(**{**arguments, **changes})
