"""What holds for every method: it trains, on images and frozen features, resumes bit for bit, leaves no trace."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from iir_fast.app.cli import main
from iir_fast.app.commands.train import Train
from iir_fast.methods import CAM, METHODS, SPG, Learner, MethodLoss, MethodName
from iir_fast.models import NetworkSpec
from iir_fast.training import IfExists, Interrupted, RunFolder, TrainConfig, train

TINY = TrainConfig().with_options(
    train_images=80, test_images=20, epochs=2, classes_per_batch=4, images_per_class=4, hidden=8
)
each_method = pytest.mark.parametrize("method", METHODS)


def configured(method: MethodName, freeze: bool, cache: Path) -> TrainConfig:
    return TINY.with_options(method=method, freeze_backbone=freeze, flip=not freeze, feature_cache=cache)


def weights_after(config: TrainConfig, root: Path, if_exists: IfExists = "refuse") -> dict[str, torch.Tensor]:
    model = train(config, root, if_exists).model
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    return model.state_dict()


@pytest.mark.parametrize("freeze", [False, True])
@each_method
def test_an_interrupted_run_ends_with_the_bits_of_a_whole_one(method, freeze, tmp_path, monkeypatch):
    config = configured(method, freeze, tmp_path / "cache")
    whole = weights_after(config, tmp_path / "whole")
    calls, loss = [], METHODS[method].loss

    def loss_and_interrupt(*arguments: object) -> MethodLoss:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(METHODS[method], "loss", loss_and_interrupt)
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
    chosen = METHODS[method]()
    model = chosen.adapt(NetworkSpec("small_cnn", tuple("abcd"), 32, hidden=8)).build()
    learner = Learner(chosen, model)
    images = torch.randn(8, 3, 32, 32)
    labels = model(images)[1].labels  # what it predicts: IIR regulates classifiers that know something
    result = learner(images, labels)
    result.loss.backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert result.foreground.shape == (8, 2, model.backbone.channels)
    assert not result.foreground.requires_grad
    assert not any(value.requires_grad for value in result.terms.values())


@each_method
def test_cached_features_are_used_unless_images_are_changed(method, tmp_path):
    config = configured(method, True, tmp_path / "cache")
    before = train(config.with_options(epochs=1), tmp_path / "run").model.backbone.state_dict()
    assert (tmp_path / "cache").exists() == config.caches_features == (method not in ("has", "adl", "cutmix"))
    torch.manual_seed(config.seed)
    fresh = NetworkSpec("small_cnn", tuple("abcdefghij"), 64, hidden=8).build().backbone.state_dict()
    assert all(torch.equal(fresh[name], before[name]) for name in fresh)


def test_methods_give_different_weights_and_the_same_kind_of_model(tmp_path):
    weights = {method: weights_after(TINY.with_options(method=method), tmp_path / method) for method in METHODS}
    assert len({state["head.weight"].sum().item() for state in weights.values()}) == len(METHODS)
    learned = {name for name in weights["iir"] if name.startswith("head.threshold")}
    assert {frozenset(state) - learned for state in weights.values()} == {frozenset(weights["cam"])}
    training = RunFolder(tmp_path / "spg").checkpoints.newest().training
    model = NetworkSpec("small_cnn", tuple("abcdefghij"), 64, hidden=8).build()
    assert training["method"].keys() == SPG().networks(model.head).state_dict().keys() != set()


def test_a_method_chooses_the_head():
    spec = NetworkSpec("small_cnn", tuple("ab"), 32)
    adapted = {name: method().adapt(spec) for name, method in METHODS.items()}
    heads = {name: (each.threshold, each.class_mean, each.erase) for name, each in adapted.items()}
    others = {"iir": ("learned", 0.75, None), "acol": ("mean", 1.0, 0.6)}
    assert heads == dict.fromkeys(METHODS, ("mean", 1.0, None)) | others, "only IIR's CAMs are not the plain ones"
    built = {name: each.build().head.class_mean for name, each in adapted.items()}
    assert built == {name: each.class_mean for name, each in adapted.items()}
    assert METHODS["iir"](threshold="fixed").adapt(spec).threshold == "fixed"
    assert METHODS["acol"](threshold=0.3).adapt(spec).erase == 0.3


def other(value):
    """Another value than an option's default."""
    if isinstance(value, tuple):
        return tuple(map(other, value))
    if isinstance(value, str):
        return {"dual": "agreement", "learned": "fixed"}[value]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2


@each_method
def test_options_reach_the_method(method, tmp_path):
    options = {each.name: other(each.default) for each in fields(METHODS[method])}
    config = TINY.with_options(method=method, **options, max_steps=1)
    assert config.method == METHODS[method](**options)
    assert (config.method == METHODS[method]()) == (not options)
    spec = train(config, tmp_path / "run").spec
    assert spec == config.method.adapt(spec)
    assert RunFolder(tmp_path / "run").config.read_text() == config.to_yaml()


@dataclass(frozen=True)
class Smoothed(CAM):
    """A method of its own: it needs no more than this and a name in METHODS."""

    smoothing: float = 0.1
    """Share of the label that goes to all classes evenly."""

    def loss(self, learner, inputs, labels):
        result = super().loss(learner, inputs, labels)
        smooth = F.cross_entropy(result.out.logits_a, labels, label_smoothing=self.smoothing)
        return result._replace(loss=smooth + F.cross_entropy(result.out.logits_b, labels))


def test_a_method_is_added_by_its_class_and_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "smoothed", Smoothed)
    config = TINY.with_options(method="smoothed", smoothing=0.5, max_steps=2)
    assert TrainConfig.from_yaml(config.to_yaml()) == config
    assert config.method == Smoothed(0.5)
    found: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self: found.append(self))
    main(["train", "x", "--method", "smoothed", "--smoothing", "0.5"])
    assert found[0].config.method == Smoothed(0.5)
    own, cam = (
        weights_after(each, tmp_path / each.method.name)["head.weight"]
        for each in (config, config.with_options(method="cam"))
    )
    assert not torch.equal(own[0], cam[0])
