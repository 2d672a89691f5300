"""HaS: whole patches of the grid, hidden at the given rate, anew for each image."""

from __future__ import annotations

import pytest
import torch

from iir_fast.methods import HaS


@pytest.mark.parametrize(("size", "side"), [(224, 44), (64, 13), (4, 1)])
def test_patches_are_hidden_or_kept_as_a_whole_and_scale_with_the_image(size, side):
    torch.manual_seed(0)
    images = torch.rand(8, 3, size, size) + 1
    hidden = HaS(grid=44).hide(images)
    patches = [(slice(y, y + side), slice(x, x + side)) for y in range(0, size, side) for x in range(0, size, side)]
    states = torch.tensor([[bool((image[:, y, x] == 0).all()) for y, x in patches] for image in hidden])
    for image, original, state in zip(hidden, images, states, strict=True):
        for (y, x), gone in zip(patches, state.tolist(), strict=True):
            assert gone or torch.equal(image[:, y, x], original[:, y, x])
    assert states.any()
    assert not states.all()
    assert not (states == states[:1]).all()
    assert (images > 0).all(), "the batch itself is left alone"


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_hidden_share_is_the_rate(rate):
    torch.manual_seed(0)
    hidden = HaS(grid=16, rate=rate).hide(torch.ones(64, 3, 224, 224))
    assert (hidden == 0).float().mean().item() == pytest.approx(rate, abs=0.02 if 0 < rate < 1 else 0)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="HaS: grid is 0; accepted is 1 or more"):
        HaS(grid=0)
    with pytest.raises(ValueError, match=r"HaS: rate is 1\.5; accepted is a number in \[0,1\]"):
        HaS(rate=1.5)
