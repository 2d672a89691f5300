"""subgroup_similarity: pairs counted right at any size, no pairs, short vectors, errors."""

from __future__ import annotations

import math

import pytest
import torch

from iir_fast.functional import subgroup_similarity
from iir_fast.kernels import backend


def test_by_hand():
    """Two orthogonal foregrounds, backgrounds opposite: a = 2 - 4."""
    foreground = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    loss = subgroup_similarity(foreground, -foreground, torch.tensor([4, 4]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(2.0 - 4.0)))


@pytest.mark.parametrize("grouping", [lambda row: row // 3, lambda row: row % 5, torch.zeros_like])
def test_many_tiles_of_rows(grouping, implementation, random):
    """Three tiles, of 256 rows on ATen and 32 in Triton; groups cross their borders."""
    count = 700 if implementation == "native" else 84
    groups = grouping(torch.arange(count))
    foreground, background = random(2, count, 9)
    results = []
    for name in (implementation, "reference"):
        leaves = [foreground.clone().requires_grad_(), background.clone().requires_grad_()]
        with backend(name):
            loss = subgroup_similarity(*leaves, groups)
            results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_without_pairs_it_is_a_zero_connected_to_the_graph(count, each_backend):
    foreground = torch.randn(count, 4, requires_grad=True)
    background = torch.randn(count, 4, requires_grad=True)
    with backend(each_backend):
        loss = subgroup_similarity(foreground, background, torch.arange(count))
        loss.backward()
    assert loss.item() == 0
    assert torch.equal(foreground.grad, torch.zeros(count, 4))


def test_a_zero_descriptor_has_zero_gradient(each_backend):
    foreground = torch.randn(4, 3, requires_grad=True)
    background = torch.zeros(4, 3, requires_grad=True)
    with backend(each_backend):
        loss = subgroup_similarity(foreground, background, torch.zeros(4, dtype=torch.int64))
        loss.backward()
    assert loss.isfinite()
    assert torch.equal(background.grad, torch.zeros(4, 3))
    assert foreground.grad.isfinite().all()


def test_a_singleton_changes_nothing_but_gets_no_gradient():
    foreground, background = torch.randn(2, 5, 8, dtype=torch.float64)
    groups = torch.tensor([0, 1, 0, 0, 1])
    alone = subgroup_similarity(foreground, background, groups)
    extra_foreground = torch.cat((foreground, torch.randn(1, 8, dtype=torch.float64))).requires_grad_()
    extra_background = torch.cat((background, torch.randn(1, 8, dtype=torch.float64)))
    together = subgroup_similarity(extra_foreground, extra_background, torch.cat((groups, torch.tensor([9]))))
    torch.testing.assert_close(alone, together)
    assert not torch.autograd.grad(together, extra_foreground)[0][5].any()


def test_nan_in_a_pair_is_not_hidden():
    foreground, background = torch.randn(2, 4, 3)
    foreground[2, 0] = torch.nan
    assert subgroup_similarity(foreground, background, torch.tensor([0, 0, 1, 1])).isnan()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"background": torch.zeros(4, 2)}, ValueError, r"background has shape \[4, 2\]; accepted is \[4, 3\]"),
        ({"groups": torch.zeros(4)}, TypeError, "groups has dtype torch.float32; accepted is torch.int64"),
        ({"groups": torch.zeros(3, dtype=torch.int64)}, ValueError, r"groups has shape \[3\]"),
        ({"foreground": torch.zeros(4, 3, 1)}, ValueError, "foreground has shape"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    arguments = {
        "foreground": torch.zeros(4, 3),
        "background": torch.zeros(4, 3),
        "groups": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(error, match=words):
        subgroup_similarity(**{**arguments, **change})
