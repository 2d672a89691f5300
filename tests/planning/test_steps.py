"""The steps that plans count compute what the package and the naive peer of the benchmarks compute."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import peers
from iir_fast import DualCAMHead, functional
from iir_fast.planning import LiveMemory
from iir_fast.planning.steps import step_with_kernels, step_without_kernels

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])


def head_and_features(hidden: int | None) -> tuple[DualCAMHead, Tensor]:
    torch.manual_seed(0)
    # Batch statistics would change from call to call, and with them nothing that matters here.
    head = DualCAMHead(16, 5, hidden, threshold="mean", class_mean=1.0).eval()
    return head, torch.rand(8, 16, 6, 6, requires_grad=True)


def gradients(loss: Tensor, head: DualCAMHead, features: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, [features, *head.parameters()])]


@pytest.mark.parametrize("hidden", [None, 4])
@pytest.mark.parametrize("step", ["with", "without"])
def test_both_steps_are_head_and_loss(step, hidden):
    head, features = head_and_features(hidden)
    if step == "without":
        loss = step_without_kernels(head, features, LABELS).loss
    else:
        loss = step_with_kernels(head, features, LABELS).loss
    out = head(features, LABELS)
    expected = F.cross_entropy(out.logits_a, LABELS) + F.cross_entropy(out.logits_b, LABELS)
    weights = {"intra_weight": 1.0, "inter_weight": 1.0}
    expected = expected + functional.iir_loss(out.cam_a, out.cam_b, out.features, LABELS, **weights).loss
    for one, other in zip(gradients(loss, head, features), gradients(expected, head, features), strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_ranks_with_the_same_images_multiply_descriptors_and_leave_the_rest():
    head, features = head_and_features(None)
    alone, kept = step_with_kernels(head, features, LABELS)
    together, kept_together = step_with_kernels(head, features, LABELS, ranks=3)
    assert all(torch.equal(one, other) for one, other in zip(kept, kept_together, strict=True))
    # Every image meets itself twice, and itself is the one it differs least from.
    assert together < alone


def test_the_step_without_kernels_takes_what_peer_a_takes():
    with FakeTensorMode():
        head = DualCAMHead(512, 200, hidden=None, threshold="mean", class_mean=1.0)
        features, labels = torch.empty(16, 512, 14, 14, requires_grad=True), torch.zeros(16, dtype=torch.int64)

        def peak(peer: bool) -> int:
            head.zero_grad()
            features.grad = None
            live = LiveMemory([features, *head.parameters()])
            with live:
                if peer:
                    loss, *_kept = peers.step_with_class_maps(features, head.weight, head.bias, labels)
                else:
                    loss, _kept = step_without_kernels(head, features, labels)
                loss.backward()
            return live.peak

        assert peak(False) == pytest.approx(peak(True), rel=0.02)
