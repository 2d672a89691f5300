"""What holds for every method: it trains, on images and frozen features, resumes bit for bit, leaves no trace."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from iir_fast.methods import METHODS, SPG, ACoL, MethodLoss, MethodName
from iir_fast.models import LocalizerSpec
from iir_fast.training import Interrupted, RunFolder, TrainConfig, WhenThere, train
from iir_fast.training.methods import create_method

TINY = TrainConfig(train_images=80, test_images=20, epochs=2, classes_per_batch=4, images_per_class=4, hidden=8)
each_method = pytest.mark.parametrize("method", METHODS)


def configured(method: MethodName, freeze: bool, cache: Path) -> TrainConfig:
    return replace(TINY, method=method, freeze_backbone=freeze, flip=not freeze, feature_cache=cache)


def weights_after(config: TrainConfig, root: Path, when_there: WhenThere = "refuse") -> dict[str, torch.Tensor]:
    model = train(config, root, when_there).model
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    return model.state_dict()


@pytest.mark.parametrize("freeze", [False, True])
@each_method
def test_an_interrupted_run_ends_with_the_bits_of_a_whole_one(method, freeze, tmp_path, monkeypatch):
    config = configured(method, freeze, tmp_path / "cache")
    whole = weights_after(config, tmp_path / "whole")
    calls, forward = [], METHODS[method].forward

    def forward_and_interrupt(*arguments: object) -> MethodLoss:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments)

    monkeypatch.setattr(METHODS[method], "forward", forward_and_interrupt)
    with pytest.raises(Interrupted, match="step 3 of 10"):
        train(config, tmp_path / "cut")
    resumed = weights_after(config, tmp_path / "cut", "resume")
    assert len(calls) == 10
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["prototypes.seen"].all()
    assert whole["prototypes.vectors"].isfinite().all()


@each_method
def test_gradients_reach_everything_that_is_trained(method):
    torch.manual_seed(0)
    erase = 0.6 if method == "acol" else None
    threshold = "learned" if method == "iir" else "mean"
    model = LocalizerSpec("small_cnn", tuple("abcd"), 32, hidden=8, threshold=threshold, erase=erase).build()
    trained = create_method(replace(TINY, method=method), model)
    labels = torch.arange(4).repeat_interleave(2)
    result = trained(model, torch.randn(8, 3, 32, 32), labels, 1.0)
    result.loss.backward()
    for name, parameter in (*model.named_parameters(), *trained.named_parameters()):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert result.foreground.shape == (8, 2, model.backbone.channels)
    assert not result.foreground.requires_grad
    assert not any(value.requires_grad for value in result.terms.values())


@each_method
def test_cached_features_are_used_unless_images_are_changed(method, tmp_path):
    config = configured(method, True, tmp_path / "cache")
    before = train(replace(config, epochs=1), tmp_path / "run").model.backbone.state_dict()
    assert (tmp_path / "cache").exists() == config.caches_features == (method not in ("has", "adl", "cutmix"))
    torch.manual_seed(config.seed)
    fresh = LocalizerSpec("small_cnn", tuple("abcdefghij"), 64, hidden=8).build().backbone.state_dict()
    assert all(torch.equal(fresh[name], before[name]) for name in fresh)


def test_methods_give_different_weights_and_the_same_kind_of_model(tmp_path):
    weights = {method: weights_after(replace(TINY, method=method), tmp_path / method) for method in METHODS}
    assert len({state["head.weight"].sum().item() for state in weights.values()}) == len(METHODS)
    learned = {name for name in weights["iir"] if name.startswith("head.threshold")}
    assert {frozenset(state) - learned for state in weights.values()} == {frozenset(weights["cam"])}
    training = RunFolder(tmp_path / "spg").checkpoints.newest().training
    model = LocalizerSpec("small_cnn", tuple("abcdefghij"), 64, hidden=8).build()
    assert training["method"].keys() == SPG(model.head).state_dict().keys()


@each_method
def test_defaults_of_the_configuration_are_the_methods_own(method):
    options = {
        f"{method}_{name}": parameter.default
        for name, parameter in signature(METHODS[method]).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert {name: getattr(TrainConfig(), name) for name in options} == options
    assert (not options) == (method in ("cam", "iir", "acol"))


def test_options_reach_the_methods(tmp_path):
    model = LocalizerSpec("small_cnn", tuple("ab"), 32, hidden=8, erase=0.3).build()
    config = replace(TINY, has_grid=16, has_rate=0.1, adl_rate=0.2, adl_threshold=0.3, cutmix_beta=0.4, cutmix_rate=0.5)
    config = replace(config, spg_high=(0.9, 0.8, 0.7), spg_low=(0.1, 0.2, 0.3))
    for method, options in (
        ("has", {"grid": 16, "rate": 0.1}),
        ("adl", {"rate": 0.2, "threshold": 0.3}),
        ("cutmix", {"beta": 0.4, "rate": 0.5}),
        ("spg", {"high": (0.9, 0.8, 0.7), "low": (0.1, 0.2, 0.3)}),
    ):
        made = create_method(replace(config, method=method), model)
        assert {name: getattr(made, name) for name in options} == options
    assert isinstance(create_method(replace(config, method="acol"), model), ACoL)
    assert train(replace(TINY, method="acol", acol_threshold=0.3), tmp_path / "run").spec.erase == 0.3
    with pytest.raises(ValueError, match="HaS: rate is 3"):
        train(replace(TINY, method="has", has_rate=3), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
