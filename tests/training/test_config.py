"""TrainConfig: YAML round trip and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from iir_fast.training import TrainConfig


def test_yaml_round_trip():
    config = TrainConfig(data="photos", epochs=3, hidden=None, feature_cache=Path("cache"), spg_high=(0.9, 0.5, 0.7))
    assert TrainConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [("epoks: 3", "names epoks; known options are .*epochs"), ("- 3", "no mapping"), ("epochs: 0", "epochs is 0")],
)
def test_bad_files_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig.from_yaml(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"flip": True, "freeze_backbone": True}, "flip is set .* cannot be mirrored"),
        ({"crop": True, "freeze_backbone": True}, "crop is set .* cannot be cropped"),
        ({"head_rate": 0}, "head_rate is 0; accepted is a number above 0"),
        ({"max_steps": 0}, "max_steps is 0; accepted is 1 or more"),
        ({"optimizer": "adamv"}, "optimizer is 'adamv'; accepted are timm's, such as adamw"),
        ({"schedule": "step"}, "schedule is 'step' and decay_epochs None; decay_epochs belongs to \"step\""),
        ({"decay_epochs": 3}, "schedule is 'one_cycle' and decay_epochs 3"),
        ({"warmup_epochs": 1}, "the one_cycle schedule warms up by itself"),
        ({"warmup_epochs": 5, "schedule": "cosine"}, "warmup_epochs is 5; accepted is 0 or more and less than epochs"),
        ({"data": "photos", "train_images": 5}, "train_images"),
        ({"data": "photos", "clutter": 2.0}, "hue_noise, head_contrast and clutter are for data"),
        ({"head_contrast": 2.0}, "head_contrast must lie in"),
        ({"method": "hide"}, "method is 'hide'; accepted are iir, cam, has"),
        ({"method": "spg", "freeze_backbone": True, "hidden": None}, "spg with a frozen backbone needs hidden"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options)


def test_images_that_are_not_cached_may_be_mirrored():
    assert not TrainConfig(method="has", flip=True, freeze_backbone=True).caches_features
