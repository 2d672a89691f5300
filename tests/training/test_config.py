"""TrainConfig: YAML round trip and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from iir_fast.training import TrainConfig


def test_yaml_round_trip():
    config = TrainConfig(data="photos", epochs=3, hidden=None, feature_cache=Path("cache"))
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
        ({"flip": True, "freeze_backbone": True}, "cannot be mirrored"),
        ({"data": "photos", "train_images": 5}, "train_images"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options)
