"""Counting live memory: by hand for a few operators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iir_fast.planning import LiveMemory

SIZE = 1000
BYTES = 4 * SIZE


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def test_what_nothing_refers_to_is_gone():
    with LiveMemory() as live:
        one = torch.empty(SIZE)
        assert live.now == BYTES
        other = one * 2
        assert live.now == 2 * BYTES
        del one
        assert live.now == BYTES
        assert live.peak == 2 * BYTES
        live.forget_peak()
        assert live.peak == BYTES
        del other
        assert live.now == 0


def test_views_and_operators_in_place_take_nothing():
    with LiveMemory() as live:
        one = torch.empty(SIZE)
        row = one.view(10, 100)[3].add_(1)
        del one
        assert live.now == live.peak == BYTES
        del row
        assert live.now == 0


def test_tensors_that_were_there_before_do_not_count():
    before = torch.empty(SIZE)
    with LiveMemory([before]) as live:
        view = before.view(10, 100)
        before.add_(1)
        assert live.now == 0
        del view


def test_a_tensor_that_is_forgotten_does_not_count_and_may_go():
    with LiveMemory() as live:
        one = torch.empty(SIZE)
        live.forget(one)
        assert live.now == 0
        del one
        assert live.now == 0


def test_the_graph_keeps_what_it_saved_until_it_has_gone_backward():
    leaf = torch.empty(SIZE, requires_grad=True)
    with LiveMemory([leaf]) as live:
        loss = leaf.exp().cos().sum()
        # exp keeps its result, which is also what cos keeps.
        assert live.now == BYTES + 4
        loss.backward()
        del loss
        assert live.now == BYTES
        # The derivative of cos beside what is saved: a sine, its negative, and the product with the incoming gradient.
        assert live.peak == pytest.approx(4 * BYTES, abs=10)


@pytest.mark.parametrize(("terms", "peak"), [(1, 1), (2, 2), (5, 2)])
def test_gradients_are_added_up_in_place(terms, peak):
    leaf = torch.empty(SIZE, requires_grad=True)
    with LiveMemory([leaf]) as live:
        loss = sum((leaf * 2).sum() for _ in range(terms))
        live.forget_peak()
        before = live.now
        loss.backward()
        assert live.peak - before == pytest.approx(peak * BYTES, abs=100)
