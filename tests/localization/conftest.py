"""A predictor of three classes, with random weights, and noise to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from iir_fast.localization import Predictor
from iir_fast.models import NetworkSpec

SPEC = NetworkSpec("small_cnn", ("cat", "dog", "cow"), image_size=32, hidden=8)


@pytest.fixture
def make_predictor() -> Callable[..., Predictor]:
    """Makes a predictor; keywords change its specification."""

    def make(**changes: object) -> Predictor:
        spec = replace(SPEC, **changes)
        torch.manual_seed(0)
        network = spec.build().eval()
        network.prototypes.update(torch.rand(3, 2, network.backbone.channels), torch.arange(3))
        return Predictor(network, spec)

    return make


@pytest.fixture
def predictor(make_predictor: Callable[..., Predictor]) -> Predictor:
    return make_predictor()


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Seven images of seven sizes: coarse noise."""
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (5, 5, 3), np.uint8)).resize((40 + 10 * i, 90 - 9 * i))
        for i in range(7)
    ]
