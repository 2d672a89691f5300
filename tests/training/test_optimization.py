"""Optimizers and schedules: learning rates by hand, groups, resumption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from iir_fast.training import Optimization
from iir_fast.training.optimization import create_optimizer, create_schedule

STEPS = 4  # per epoch


def built(**options):
    torch.manual_seed(0)
    backbone, head = nn.Linear(3, 3), nn.Linear(3, 2)
    config = Optimization(learning_rate=0.1, head_lr_mult=10.0, **options)
    optimizer = create_optimizer(config, backbone.parameters(), head.parameters())
    return optimizer, create_schedule(config, optimizer, STEPS), (backbone, head)


def rates(**options):
    """Learning rate of both groups at every step."""
    optimizer, schedule, _ = built(**options)
    found = []
    for _ in range(options["epochs"] * STEPS):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def test_step_decays_after_warm_up():
    found = rates(epochs=4, schedule="step", decay_epochs=2, decay_factor=0.5, warmup_epochs=1)
    backbone = [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1] + 8 * [0.05]
    assert [one for one, _ in found] == pytest.approx(backbone)
    assert [other for _, other in found] == pytest.approx([10 * rate for rate in backbone])


def test_cosine_ends_near_zero():
    found = [one for one, _ in rates(epochs=3, schedule="cosine", warmup_epochs=1)]
    tail = [0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, *tail])


def test_one_cycle_rises_for_a_fifth_of_training():
    found = rates(epochs=5, schedule="one_cycle")
    assert max(range(20), key=lambda step: found[step][0]) in (3, 4)
    assert all(other == pytest.approx(10 * one) for one, other in found)
    assert found[-1][0] < 1e-3


def test_one_cycle_takes_any_number_of_steps():
    for steps in range(1, 12):
        optimizer = create_optimizer(Optimization(), nn.Linear(3, 3).parameters(), [])
        schedule = create_schedule(Optimization(epochs=1), optimizer, steps)
        for _ in range(steps):
            assert 0 < optimizer.param_groups[0]["lr"] <= 2e-3
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw", {"betas": (0.95, 0.999)}),
        ("sgd", {"momentum": 0.8, "nesterov": True}),
        ("lars", {"momentum": 0.8}),
        ("lamb", {}),
    ],
)
def test_every_parameter_decays_and_the_options_arrive(optimizer, expected):
    built_one, _, modules = built(epochs=5, optimizer=optimizer, momentum=0.8, weight_decay=0.3)
    groups = built_one.param_groups
    assert [group["params"] for group in groups] == [list(module.parameters()) for module in modules]
    for group in groups:
        assert group["weight_decay"] == 0.3
        assert expected.items() <= group.items()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars", "lamb"])
def test_fused_updates_are_those_of_the_optimizer(optimizer):
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        made = create_optimizer(Optimization(optimizer=optimizer), layer.parameters(), [], fused)
        assert bool(made.defaults.get("fused")) == (fused and optimizer in ("sgd", "adamw"))
        for _ in range(3):
            made.zero_grad()
            layer(torch.ones(2, 3)).square().sum().backward()
            made.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights)


def test_a_frozen_backbone_has_no_group():
    backbone, head = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2)
    (group,) = create_optimizer(Optimization(), backbone.parameters(), head.parameters()).param_groups
    assert group["params"] == list(head.parameters())


@pytest.mark.parametrize("options", [{}, {"schedule": "step", "decay_epochs": 1}, {"schedule": "cosine"}])
def test_a_schedule_goes_on_where_its_state_was_taken(options):
    whole = rates(epochs=3, **options)
    optimizer, schedule, _ = built(epochs=3, **options)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer, schedule, _ = built(epochs=3, **options)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert [group["lr"] for group in optimizer.param_groups] == whole[5]
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == whole[6]
