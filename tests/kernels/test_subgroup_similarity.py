"""subgroup_similarity: pairs counted right at any size, no pairs, short vectors, errors."""

from __future__ import annotations

import math

import pytest
import torch

from iir_fast.functional import inter_intra, subgroup_similarity
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


@pytest.mark.parametrize("operator", ["subgroup_similarity", "inter_intra"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_descriptor_too_short_for_a_direction_is_zero_with_zero_gradient(dtype, operator, each_backend):
    def run(length: float) -> list[torch.Tensor]:
        leaves = [each.clone() for each in drawn]
        for row, each in enumerate(leaves, 1):
            each[row] = length * torch.eye(3, dtype=dtype)[0]
        foreground, background = (each.requires_grad_() for each in leaves)
        if operator == "inter_intra":
            regions = foreground.view(2, 2, 3), background.view(2, 2, 3)
            labels = torch.zeros(2, dtype=torch.int64)
            loss = inter_intra(torch.zeros(2, 2, dtype=dtype), *regions, labels, 1.0, 1.0).loss
        else:
            loss = subgroup_similarity(foreground, background, torch.zeros(4, dtype=torch.int64))
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    drawn = torch.randn(2, 4, 3, dtype=dtype)
    with backend(each_backend):
        # Triton's kernels have the bound in float32, which is a little below it.
        zero, short = run(0.0), run(1e-12 if dtype == torch.float64 and each_backend != "triton" else 1e-13)
    assert all(each.isfinite().all() for each in short)
    assert not short[1][1].any()
    assert not short[2][2].any()
    for one, other in zip(short, zero, strict=True):
        torch.testing.assert_close(one, other)


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
