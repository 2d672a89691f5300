"""masked_pool: empty regions and its errors."""

from __future__ import annotations

import pytest
import torch

from iir_fast.functional import masked_pool
from iir_fast.kernels.masked_pool import reference


def test_regions_of_a_hard_mask_are_plain_means():
    features = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    mask = torch.zeros(2, 1, 4, 6, dtype=torch.float64)
    mask[:, :, 1:3, 2:5] = 1
    foreground, background = masked_pool(features, mask)
    inside = features[:, :, 1:3, 2:5]
    torch.testing.assert_close(foreground[:, 0], inside.mean(dim=(2, 3)), rtol=1e-6, atol=0)
    outside = (features.sum(dim=(2, 3)) - inside.sum(dim=(2, 3))) / 18
    torch.testing.assert_close(background[:, 0], outside, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_region_is_exactly_zero(value):
    masks = torch.full((2, 2, 4, 4), value, requires_grad=True)
    foreground, background = masked_pool(torch.randn(2, 5, 4, 4), masks)
    empty = foreground if value == 0 else background
    assert torch.equal(empty, torch.zeros_like(empty))
    (foreground.sum() + background.sum()).backward()
    assert masks.grad.isfinite().all()


@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        (torch.zeros(2, 0, 4, 4), ValueError, "at least one mask"),
        (torch.zeros(2, 1, 4, 5), ValueError, r"masks has shape \[2, 1, 4, 5\]; accepted is \[2,R,4,4\]"),
        (torch.zeros(2, 4, 4), ValueError, "masks has shape"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.bool), TypeError, "masks has dtype torch.bool"),
    ],
)
def test_errors_name_the_argument(masks, error, words):
    with pytest.raises(error, match=words):
        masked_pool(torch.zeros(2, 3, 4, 4), masks)


@pytest.mark.parametrize("channels", [129, 200, 320])
def test_no_channel_of_a_large_map_is_left_out(channels):
    """A program of the Triton kernel takes 128 channels of a map this large."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, 17, 17, generator=generator)
    masks = torch.rand(1, 1, 17, 17, generator=generator)
    exact = reference.masked_pool(features.double(), masks.double())
    for actual, expected in zip(masked_pool(features, masks), exact, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)
